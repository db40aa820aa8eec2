"""Ports that nobody listens on."""

import socket
from contextlib import closing
from random import SystemRandom

RANGE = 20_000, 32_000


def free_port(room: int = 1) -> int:
    """A loopback port that is free, and so are the next ones, `room` in all.

    Below the range that Linux gives to outgoing connections, unless it is told another, so that none of them
    takes it before a server starts there, or starts again. Not from `random`, whose seed is the same in every
    test process.
    """
    for port in SystemRandom().sample(range(*RANGE, room), 200):
        if is_free(port, room):
            return port
    raise RuntimeError("none of 200 ports is free")


def is_free(port: int, room: int = 1) -> bool:
    return all(_can_listen(number) for number in range(port, port + room))


def _can_listen(port: int) -> bool:
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
