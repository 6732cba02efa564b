"""Socket pairs, and reading what went into them outside of the time measured."""

import contextlib
import resource
import socket
from collections.abc import Iterator

import pytest

PAIRS = 1000


def read_all(peers: list[socket.socket]) -> None:
    """Empties the sockets."""
    for peer in peers:
        with contextlib.suppress(BlockingIOError):
            peer.recv(1 << 16)


@pytest.fixture
def pairs() -> Iterator[tuple[list[socket.socket], list[socket.socket]]]:
    """PAIRS connected sockets: those to write to and their peers, all nonblocking."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    made = [socket.socketpair() for _ in range(PAIRS)]
    for pair in made:
        for one in pair:
            one.setblocking(False)
    ours, peers = [list(side) for side in zip(*made, strict=True)]
    yield ours, peers
    for one in (*ours, *peers):
        one.close()
