"""What a stream holds in memory."""

import tracemalloc
from collections.abc import Callable

import pytest

from fastsse.directives import Control
from fastsse.streamstate import StreamConfig, StreamControl

COUNT = 1_000


@pytest.mark.parametrize(
    "made",
    [
        lambda n: StreamControl("create", StreamConfig(f"text/plain; n={n}")).encode(),
        lambda n: Control("delete", n << 64).encode(),
    ],
    ids=["stream", "event"],
)
def test_a_control_entry_holds_no_room_of_the_buffer_that_it_was_written_into(
    made: Callable[[int], bytes],
) -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = [made(n) for n in range(COUNT)]
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    # About 120 with the list; it was 4,100.
    assert held / COUNT < sum(map(len, kept)) / COUNT + 200
