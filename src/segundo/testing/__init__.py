"""What tests of an app use: the classes of the pytest plugin's fixtures."""

from segundo.testing.clock import LedgerClock
from segundo.testing.faults import LedgerFaults
from segundo.testing.recorder import Recorder
from segundo.testing.seen import FailedCall, SeenCall

__all__ = ["FailedCall", "LedgerClock", "LedgerFaults", "Recorder", "SeenCall"]
