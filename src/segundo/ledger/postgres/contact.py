"""How long this process has been in touch with the server without a break: only then may it say who is dead.

After an outage every lease has run out. Who comes back first must give the others a whole lease to come back
too; so does one that was frozen itself, or that saw the server's clock jump.
"""

import time
from collections.abc import Callable

JUMP = 5.0  # seconds by which the server's clock may run ahead of ours from one word to the next


def boot_time() -> float:
    """Seconds that go on while the machine sleeps, too, where the system can tell."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


class Contact:
    """`lease`: seconds that a worker lives from its last word. `here`: our own clock, which never jumps."""

    def __init__(self, lease: float, here: Callable[[], float] = boot_time) -> None:
        self._lease = lease
        self._here = here
        self._since: float | None = None
        self._last = (0.0, 0.0)

    def made(self, server: float) -> None:
        """The server has answered, and its clock said `server`."""
        here = self._here()
        gone, gone_there = here - self._last[0], server - self._last[1]
        if self._since is None or gone > self._lease / 2 or gone_there > gone + JUMP:
            self._since = here
        self._last = (here, server)

    def lost(self) -> None:
        """It did not answer."""
        self._since = None

    def lasts(self, seconds: float) -> bool:
        """Whether it has been unbroken for so long."""
        return self._since is not None and self._here() - self._since >= seconds
