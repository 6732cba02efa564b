"""A history on its way to another process: its entries in pages, then what it has let go."""

import struct
from collections.abc import Callable, Iterator
from typing import Final

from fastsse.bus.frames import Fields, FrameError, Kind, frame, pack_position, text
from fastsse.bus.link import Link
from fastsse.entries import Entry, pack_entry, unpack_entries
from fastsse.hub.history import Evictions, History

__all__ = ["Dump", "evicted_frames", "read_entries", "read_evicted"]

PAGE_BYTES: Final = 256 * 1024
# Topics in one frame.
TOPICS_MAX: Final = 4_000
_COUNT: Final = struct.Struct("<I")


def evicted_frames(evictions: Evictions) -> Iterator[bytes]:
    """What was let go, in frames of a bounded size."""
    names = list(evictions.by_topic.items())
    places = pack_position(evictions.of_all) + pack_position(evictions.forgotten_through)
    for at in range(0, len(names) or 1, TOPICS_MAX):
        some = names[at : at + TOPICS_MAX]
        rows = b"".join(text(name) + pack_position(place) for name, place in some)
        yield frame(Kind.EVICTED, places, _COUNT.pack(len(some)), rows)


def read_evicted(body: bytes) -> Evictions:
    """One such frame. Raises FrameError."""
    fields = Fields(body)
    of_all, forgotten_through = fields.position(), fields.position()
    count = fields.u32()
    if count > TOPICS_MAX:
        raise FrameError(f"{count} topics in a frame")
    by_topic = {fields.text(): fields.position() for _ in range(count)}
    fields.end()
    return Evictions(by_topic, of_all, forgotten_through)


def read_entries(body: bytes, at: int = 0) -> list[Entry]:
    """The entries from a place of a body on. Raises FrameError for damaged ones."""
    try:
        return unpack_entries(memoryview(body)[at:])
    except ValueError as error:
        raise FrameError(str(error)) from None


class Dump:
    """Sends a history up a link, a page whenever the link has room.

    Arguments:
        end: gives the frames that follow the last page.
    """

    def __init__(
        self, history: History, link: Link, after: int, end: Callable[[], Iterator[bytes]]
    ) -> None:
        self._history = history
        self._link = link
        self._after = after
        self._end = end
        link.on_drained = self._go_on
        self._go_on()

    def _go_on(self) -> None:
        link = self._link
        while link.is_open and not link.is_full:
            entries = self._history.entries(self._after, PAGE_BYTES)
            if not entries:
                link.on_drained = _nothing
                for last in self._end():
                    link.send(last)
                return
            self._after = entries[-1].position
            link.send(frame(Kind.KEPT, *map(pack_entry, entries)))
            link.flush()


def _nothing() -> None:
    """No dump is under way."""
