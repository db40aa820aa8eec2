"""The mark on a ledger that is shut: its records move to another, or have."""

import json
from dataclasses import asdict, dataclass
from typing import Self

from segundo.errors import LedgerMoved, LedgerUnusable
from segundo.ledger.transaction import Transaction

NAME = "moved"  # in the table `meta`
HOLDER = "moving:"  # how the names of holders begin


@dataclass(frozen=True, slots=True)
class Mark:
    """`to`: the other ledger, as messages name it. `holder`: the owner, there, of what is not yet let go.
    `ended`: ended records move as well. `done`: they are there; until then they are here.
    """

    to: str
    holder: str
    ended: bool
    done: bool = False

    @classmethod
    def read(cls, text: str) -> Self:
        """Raises LedgerUnusable for what no Segundo has written."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError, RecursionError) as error:
            raise LedgerUnusable("the ledger's mark of a move cannot be read: restore a backup") from error

    def write(self) -> str:
        return json.dumps(asdict(self))

    def error(self) -> LedgerMoved:
        """What an app is told that opens this ledger."""
        if self.done:
            return LedgerMoved(
                f"the records of this ledger have moved to {self.to}: set SEGUNDO_LEDGER to that"
            )
        return LedgerMoved(
            f"the records of this ledger are moving to {self.to}: wait for `segundo move` to finish, or run "
            "it again if it was broken off"
        )


def mark_of(tx: Transaction) -> Mark | None:
    """What is said of this ledger until the end of the transaction, if its gate is held."""
    text = tx.value(tx.sql.META, NAME)
    return None if text is None else Mark.read(text)


def check_open(tx: Transaction) -> None:
    """Raise LedgerMoved if its records move to another ledger, or have."""
    mark = mark_of(tx)
    if mark is not None:
        raise mark.error()
