"""Operations on the connection table, channels and command queue."""

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fastsse import _core

MANY = 100_000


@pytest.fixture
def sender() -> Iterator[_core.Sender]:
    made = _core.Sender(max_connections=MANY)
    made.start()
    yield made
    made.stop()


@pytest.mark.benchmark(group="table")
def test_allocate_and_release_a_slot(benchmark: BenchmarkFixture, sender: _core.Sender) -> None:
    benchmark(lambda: sender.release(sender.allocate()))
    assert sender.free_slot_count == MANY


@pytest.mark.benchmark(group="table")
def test_allocate_and_release_when_nearly_full(
    benchmark: BenchmarkFixture, sender: _core.Sender
) -> None:
    for _ in range(MANY - 1):
        sender.allocate()
    benchmark(lambda: sender.release(sender.allocate()))
    assert sender.free_slot_count == 1


@pytest.mark.benchmark(group="table")
def test_publish_without_subscribers(benchmark: BenchmarkFixture, sender: _core.Sender) -> None:
    frame = _core.encode_frame(b"x" * 128, None, b"1-1", 0, 1)

    def publish() -> None:
        while sender.pending_commands > _core.QUEUE_MAX // 2:
            time.sleep(0)
        sender.publish(frame, (7,), _core.POLICY_DISCONNECT)
        sender.wake()

    benchmark(publish)


@pytest.mark.benchmark(group="table")
def test_add_and_remove_a_channel(benchmark: BenchmarkFixture, sender: _core.Sender) -> None:
    def turn() -> None:
        while sender.pending_commands > _core.QUEUE_MAX // 2:
            time.sleep(0)
        sender.add_channel(1, (1, 2))
        sender.remove_channel(1)

    benchmark(turn)


@pytest.mark.benchmark(group="table")
def test_hand_over_a_socket_until_it_is_closed(
    benchmark: BenchmarkFixture, sender: _core.Sender
) -> None:
    """attach, head sent, close, last chunk, notice taken: what a short stream costs the core."""
    sender.add_channel(1, (1,))
    head = _core.wire_frame(b"HTTP/1.1 200 OK\r\n\r\n")

    def life() -> None:
        ours, peer = socket.socketpair()
        with contextlib.closing(peer):
            handle = sender.allocate()
            sender.attach(handle, ours.detach(), 1, True, True, (head,))
            sender.wake()
            sender.close(handle, _core.REASON_ENDED, None)
            while not sender.take_notices():
                time.sleep(0)

    benchmark(life)
