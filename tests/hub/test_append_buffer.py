"""What waits to go into a history is bounded by count and by bytes."""

import pytest

from fastsse.config import HistoryOptions
from fastsse.entries import encode_entries
from fastsse.events import Event
from fastsse.hub import append_buffer
from fastsse.hub.append_buffer import AppendBuffer
from fastsse.hub.history import History
from fastsse.hub.topics import Rules, Topics


@pytest.mark.parametrize("size", [1, 10_000, 1_000_000])
def test_entries_that_wait_for_a_reader_are_bounded(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(append_buffer, "UNSETTLED_MAX", 500)
    monkeypatch.setattr(append_buffer, "UNSETTLED_BYTES", 1_000_000)
    topics = Topics(Rules(HistoryOptions(), "disconnect"), 1 << 80)
    history = History(topics, 64 * 1024 * 1024, 1 << 80)
    buffer = AppendBuffer(topics, history)
    for n in range(1_200):
        position = (1 << 80) + n + 1
        buffer.keep(encode_entries(range(position, position + 1), [Event("t", "x" * size)], 1))
        assert len(buffer._unsettled) <= 500
        assert buffer._unsettled_bytes <= 1_000_000
        assert buffer._unsettled_bytes == sum(entry[3].size for entry in buffer._unsettled)
        if n * size > 40_000_000:
            break
    buffer.settle()
    assert history.events >= 16
