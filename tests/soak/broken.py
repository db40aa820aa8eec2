"""The library broken on purpose, one promise at a time: what the checker must catch."""

WAYS: dict[str, object] = {}


def install(name: str | None) -> None:
    """Break this process's library in the way that `name` says; with None, leave it whole."""
