"""Offsets of an event stream never go back when another reader begins."""

import json
from types import SimpleNamespace

from fastsse.entries import Entry, encode_entries
from fastsse.events import Event
from fastsse.positions import now_ms, position_at
from fastsse.streamoffsets import format_offset
from fastsse.streams.cursors import Cursors
from fastsse.streams.tailing import StreamTails
from fastsse.streamstate import StreamConfig, StreamRow

GENERATION = position_at(1_700_000_000_000)


class _Sent:
    """The tail of one generation of a stream, and its blocks."""

    def __init__(self) -> None:
        self.blocks: list[bytes] = []
        self.is_over = False

    def send(self, block: bytes, time_ms: int) -> None:
        self.blocks.append(block)

    def end(self) -> None:
        self.is_over = True

    @property
    def offsets(self) -> list[str]:
        texts = [one.split(b"event: control\ndata:")[1].split(b"\n")[0] for one in self.blocks]
        return [json.loads(text)["streamNextOffset"] for text in texts]


def _entries(*events: Event, at: int) -> list[Entry]:
    return list(encode_entries([GENERATION + at + n for n in range(len(events))], events))


def test_a_reader_with_an_older_row_moves_no_offset_back() -> None:
    sent = _Sent()
    tails_of_hub = SimpleNamespace(find=lambda name: sent, wake=lambda: None)
    tails = StreamTails(
        SimpleNamespace(tails=tails_of_hub), Cursors(now_ms), _Nobody(), lambda topic, row: None
    )
    row = StreamRow(GENERATION, StreamConfig("text/plain"), GENERATION)
    tails.open("s", row)
    tails.on_entries(_entries(Event("s", "one"), Event("s", "two"), at=1))
    tails.open("s", row)  # Of a reader whose page was read before.
    tails.on_entries(_entries(Event.end("s"), at=3))
    assert sent.offsets == [format_offset(GENERATION + n) for n in (1, 2, 2)]
    assert sent.is_over
    # It was deleted and created again.
    tails.open("s", row._replace(generation=GENERATION + 9, tail=GENERATION + 9))
    tails.on_entries(_entries(Event.end("s"), at=10))
    assert sent.offsets[3:] == [format_offset(GENERATION + 9)]


class _Nobody:
    """No long-poll waits."""

    count = 0

    def __contains__(self, topic: str) -> bool:
        return False
