"""Appends to durable streams, judged and packed in columns. Where order is made, by the thread that
judges."""

from collections.abc import Callable, Sequence
from typing import Any

from fastsse._batch import Entries
from fastsse.events import Event
from fastsse.streamstate import StreamRow

class Appends:
    """A batch in columns of which every event may be stored.

    Attributes:
        before: the streams that it changes, each with its row as it was.
        producers: the rows of its producers as they were, by key; None: there was none.
        new_keys: of producers that had no row.
        size_bytes: what it adds to the streams.
        is_whole: each of its events is an append.
    """

    before: list[tuple[str, StreamRow]]
    producers: dict[bytes, tuple[int, int, int] | None]
    new_keys: list[bytes]
    size_bytes: int
    is_whole: bool

    def rows(self, positions: Sequence[int], now_ms: int) -> dict[str, StreamRow]:
        """The rows of its streams, by topic, when its events have these positions. O(events)."""

    def numbers(self, positions: Sequence[int]) -> list[tuple[bytes, int, int, int]]:
        """Key, epoch, sequence and position of the newest append of each of its producers.
        O(producers)."""

    def forget_keys(self) -> None:
        """Has its entries carry nothing of what was judged but the `Stream-Seq`. O(events)."""

def judge_appends(
    events: Sequence[Event],
    find: Callable[[str], StreamRow | None],
    ended_at: Callable[[str], int] | None,
    find_producer: Callable[[bytes], tuple[int, int, int] | None],
    now_ms: int,
    room_bytes: int,
) -> Appends | None:
    """What a batch changes, when all of it may be stored. None when `judge` and `stream_rows.check`
    must look at it: an append is refused or known, or something else is asked. Changes nothing.
    O(events).

    Arguments:
        find: the row of a stream; None: the topic is none.
        ended_at: as of `TopicStates`; None: no topic has ended.
        find_producer: the row of a producer.
        now_ms: unix milliseconds.
        room_bytes: how much streams may still grow.
    """

def pack_appends(
    entries: Entries,
    first_place: int,
    cost_bytes: int,
    plain: list[Any],
    named: list[Any],
    kept: dict[str, bytearray],
) -> int:
    """Adds appends of one topic each to what a file is to store. Returns how many bytes they count.
    O(bytes).

    Arguments:
        first_place: the place of the first; the others follow it without a gap.
        cost_bytes: what each counts besides its record.
        plain: gets the place and the record of each without an own id.
        named: gets the place, the own id and the record of each with one.
        kept: gets, under the topic of each, its place and the bytes that it counts: two numbers of
            8 bytes in the order of the machine.
    """

def add_rows(pairs: bytearray, number: int, values: list[Any]) -> int:
    """Adds a row to `values` for each of a topic's events that `pack_appends` noted: the number of
    the topic, the place, the bytes that it counts, and 0. Returns all these bytes. O(events).

    Raises:
        ValueError: these are no pairs.
    """
