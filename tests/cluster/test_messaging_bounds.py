"""What a node has to send to others is dropped above its bound, and they see that by its number."""

import gc
import tracemalloc

import pytest

# Before `fastsse.cluster`, which it imports.
from fastsse.cluster import messaging
from fastsse.cluster.membership import Membership
from fastsse.cluster.messaging import RedisNodeMessaging
from fastsse.redis.connection import RedisAddress
from fastsse.redis.keys import Keys

BOUND = 1024 * 1024


@pytest.mark.parametrize("size", [1, 1_000, 60_000])
async def test_messages_above_the_bound_are_dropped_and_leave_a_number_out(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(messaging, "QUEUE_BYTES_MAX", BOUND)
    address, keys = RedisAddress("redis://127.0.0.1:1", 1), Keys("fastsse")
    node = RedisNodeMessaging(address, keys, Membership(address, keys, 8))
    node._is_linked = True
    count = 3 * BOUND // (size + 256)
    most_bytes = 0
    gc.collect()
    tracemalloc.start()
    try:
        for n in range(count):
            node.notify("shares", bytes(b"x" * size))
            most_bytes = max(most_bytes, node._queued_bytes)
            assert node._number >= n + 1
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert BOUND <= most_bytes <= BOUND + size + 1_024
    assert peak_bytes < 1.5 * BOUND
    assert node._number > count
    assert len(node._queue) < count
