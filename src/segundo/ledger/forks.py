"""How many forks lie between the program's start and this process."""

import os


class Forks:
    """Quicker to ask than the process's id."""

    def __init__(self) -> None:
        self.count = 0
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self.count += 1


forks = Forks()  # per process, as forks are
