"""One 128-byte event to 1,000 socket pairs, each on a channel of its own: public, private with one
grant, private with a thousand to look among; and to one reader of a topic that many were granted.
"""

import socket
import time
from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.micro.conftest import read_all
from fastsse import _core

Pairs = tuple[list[socket.socket], list[socket.socket]]
ROUNDS = 50
NEWS = 1


def event(private: bool) -> _core.Frame:
    return _core.encode_frame(b"x" * 128, None, b"1763765540123-7", 0, 7, private)


def sends_to(sender: _core.Sender, frame: _core.Frame, streams: int) -> Callable[[], None]:
    """Publishes once and waits until every stream was sent it."""
    sent = 0

    def send() -> None:
        nonlocal sent
        sender.publish(frame, (NEWS,), _core.POLICY_DISCONNECT)
        sender.wake()
        sent += streams
        while sender.counters()["deliveries"] < sent:
            time.sleep(0)

    return send


def attach(sender: _core.Sender, ours: socket.socket, channel: int) -> None:
    sender.attach(sender.allocate(), ours.detach(), channel, True, True, ())
    sender.wake()


@pytest.mark.benchmark(group="private to 1,000 channels")
@pytest.mark.parametrize(
    ("private", "grants"), [(False, 1), (True, 1), (True, 1000)], ids=["public", "1", "1000"]
)
def test_broadcast(benchmark: BenchmarkFixture, pairs: Pairs, private: bool, grants: int) -> None:
    sender = _core.Sender(max_connections=len(pairs[0]))
    sender.start()
    for number, ours in enumerate(pairs[0]):
        sender.add_channel(number, (NEWS,), range(NEWS, NEWS + grants))
        attach(sender, ours, number)
    try:
        benchmark.pedantic(  # type: ignore[no-untyped-call]
            sends_to(sender, event(private), len(pairs[0])),
            setup=lambda: read_all(pairs[1]),
            rounds=ROUNDS,
            warmup_rounds=3,
        )
    finally:
        sender.stop()


@pytest.mark.benchmark(group="one reader, many grants")
@pytest.mark.parametrize("granted", [1, 100_000])
def test_one_reader_of_a_topic_that_many_were_granted(
    benchmark: BenchmarkFixture, granted: int
) -> None:
    sender = _core.Sender(max_connections=1)
    sender.start()
    for number in range(granted):
        sender.add_channel(number, (number + 10,), (NEWS,))
    sender.link(NEWS, 0)
    ours, peer = socket.socketpair()
    attach(sender, ours, 0)
    peer.setblocking(False)
    try:
        benchmark.pedantic(  # type: ignore[no-untyped-call]
            sends_to(sender, event(True), 1),
            setup=lambda: read_all([peer]),
            rounds=500,
            warmup_rounds=3,
        )
    finally:
        sender.stop()
        peer.close()
