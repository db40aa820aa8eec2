"""`python -m tests.upstream.newest`: is this FastAPI newer than the newest that is known?"""

from fastapi import __version__

from segundo.shape import NEWEST_KNOWN, newer


def note(version: str) -> str:
    """What CI prints above its tests. A newer FastAPI is no failure: that all tests pass is what counts."""
    if not newer(version):
        return f"FastAPI {version}; the newest known to work is {NEWEST_KNOWN}"
    return (
        f"NOTE: FastAPI {version} is newer than {NEWEST_KNOWN}, the newest known to work. "
        f'If everything below passes, say so: NEWEST_KNOWN = "{version}" in src/segundo/shape.py'
    )


if __name__ == "__main__":
    print(note(__version__))
