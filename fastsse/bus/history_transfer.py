"""Transfers a history to another process: its entries in pages, its evictions, an end mark.

A hub that lost its memory receives it from a worker, and a worker that starts receives it from the
hub. Both serve meanwhile: new entries come in the log, and the transfer contains older ones.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from fastsse.bus.frames import COUNT, Fields, FrameError, FrameKind, frame, pack_position, text
from fastsse.bus.transport import FrameTransport
from fastsse.entries import Entry, pack_entry, unpack_entries
from fastsse.hub.backfill import Evictions
from fastsse.hub.history import History

__all__ = ["PAGE_BYTES", "HistoryReceiver", "evictions_of", "read_entries", "send_history"]

# Of a catch-up.
PAGE_BYTES: Final = 256 * 1024
# Bytes of a page of a history: each end needs a millisecond or two for it, and then its loop runs
# on.
SLICE_BYTES: Final = 64 * 1024
# Topics in one frame.
TOPICS_MAX: Final = 4_000


def read_entries(body: bytes, at: int = 0) -> list[Entry]:
    """The entries from a place of a body on. Raises FrameError for damaged ones."""
    try:
        return unpack_entries(memoryview(body)[at:])
    except ValueError as error:
        raise FrameError(str(error)) from None


def evictions_of(history: History) -> Iterator[bytes]:
    """Yields the evictions of a history in frames of bounded size, and then the end mark."""
    evictions = history.evictions()
    names = list(evictions.by_topic.items())
    for at in range(0, len(names), TOPICS_MAX):
        some = names[at : at + TOPICS_MAX]
        rows = b"".join([text(name) + pack_position(place) for name, place in some])
        yield frame(FrameKind.EVICTED, COUNT.pack(len(some)), rows)
    places = pack_position(evictions.of_all) + pack_position(evictions.forgotten_through)
    yield frame(FrameKind.DUMPED, places)


def send_history(
    history: History,
    link: FrameTransport,
    after: int,
    through: int,
    end: Callable[[], Iterable[bytes]],
) -> None:
    """Sends a history over a link, in pages.

    Arguments:
        after, through: between which places.
        end: yields the frames after the last page; called once.
    """
    link.pager.add(_frames(history, after, through, end), link.send_now)


def _frames(
    history: History, after: int, through: int, end: Callable[[], Iterable[bytes]]
) -> Iterator[bytes]:
    while True:
        entries = history.entries(after, SLICE_BYTES)
        while entries and entries[-1].position > through:
            entries.pop()
        if not entries:
            break
        after = entries[-1].position
        yield frame(FrameKind.KEPT, *map(pack_entry, entries))
    yield from end()


class HistoryReceiver:
    """Receives a history until its end mark. Only then the own history is changed.

    Arguments:
        history: the history to fill.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._older = history.older()
        self._last = 0
        self._by_topic: dict[str, int] = {}

    def take(self, kind: int, body: bytes) -> bool:
        """Takes one frame. True: it was the last, and the history is complete. Raises
        FrameError."""
        if kind == FrameKind.KEPT:
            self._take_entries(read_entries(body))
        elif kind == FrameKind.EVICTED:
            by_topic = _read_evicted(body)
            self._older.hold(by_topic)
            self._by_topic.update(by_topic)
        else:
            fields = Fields(body)
            of_all, forgotten_through = fields.position(), fields.position()
            fields.end()
            evictions = Evictions(self._by_topic, of_all, forgotten_through)
            self._history.prepend(self._older, evictions)
            self._older.release()
        return kind == FrameKind.DUMPED

    def give_up(self) -> None:
        """Forgets what has come so far."""
        self._older.release()

    def _take_entries(self, entries: list[Entry]) -> None:
        last, most = self._last, self._history.expected_through
        for entry in entries:
            if not last < entry.position <= most:
                raise FrameError("a history out of order")
            last = entry.position
        self._last = last
        self._older.add(entries)


def _read_evicted(body: bytes) -> dict[str, int]:
    fields = Fields(body)
    count = fields.u32()
    if count > TOPICS_MAX:
        raise FrameError(f"{count} topics in a frame")
    by_topic = {fields.text(): fields.position() for _ in range(count)}
    fields.end()
    return by_topic
