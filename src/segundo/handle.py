"""What `add_task` returns: how a caller finds the record of its call."""

from typing import Generic, TypeVar

from segundo.record import Record

R_co = TypeVar("R_co", covariant=True)


class Handle(Generic[R_co]):
    """What `add_task` returns: the record's id, or None for a call that runs in process and has no record."""

    __slots__ = ("_record", "id")

    def __init__(self, id: str | None) -> None:
        self.id = id
        self._record: Record | None = None

    @property
    def recorded(self) -> bool:
        """True once the call is durably in the ledger."""
        return self._record is not None

    @property
    def record(self) -> Record:
        """The record as it was stored. RuntimeError before that, and for a call that runs in process."""
        if self._record is None:
            raise RuntimeError("this call is not recorded yet: that happens after the endpoint has returned")
        return self._record

    def stored(self, record: Record) -> None:
        """The ledger has the call. A duplicate's handle becomes that of the live record it is the same as."""
        self._record = record
        self.id = record.same_as or record.id

    def __repr__(self) -> str:
        return f"Handle({self.id!r})"
