"""A store that outlives its node, and answers when the test says so."""

from collections.abc import Callable, Sequence
from typing import Any

from fastsse.backbone import (
    Broken,
    Deliver,
    Done,
    Ended,
    FoundStreams,
    Placed,
    Stretch,
    Stretched,
    newest_within,
)
from fastsse.config import HistoryOptions
from fastsse.entries import Entry, encode_entries
from fastsse.errors import FastsseError, Unavailable
from fastsse.events import Event
from fastsse.evicted import Evicted
from fastsse.positions import Clock, position_at
from fastsse.selectors import compile_selector
from fastsse.subscriptions import Cursor


class Disk:
    """What is stored."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.head = 0
        self.evicted_through = 0

    def evict(self, count: int) -> None:
        self.evicted_through = self.entries[count - 1].position
        del self.entries[:count]


class StoredBackbone:
    """A backbone on a disk. While `holds`, questions wait for `answer`; what is answered is as it
    was when they were asked if it `reads_at_once`."""

    judges_each = False
    append_now = None

    def __init__(self, disk: Disk, now_ms: Callable[[], int]) -> None:
        self.disk = disk
        self.start = max(disk.head, position_at(now_ms()))
        self.trouble: str | None = None
        self.holds = False
        self.reads_at_once = False
        self.fails = False
        self.has_ended = False
        self.held: list[Callable[[], None]] = []
        self.questions: list[tuple[Any, ...]] = []
        self._clock = Clock(now_ms, last=self.start)
        self.deliver: Deliver = lambda entries: None
        self.broken: Broken = lambda why, place: None

    @property
    def head(self) -> int:
        return self._clock.last

    def tail(self, after: int, deliver: Deliver, broken: Broken) -> None:
        self.deliver, self.broken = deliver, broken

    def ended_topics(self, topics: tuple[str, ...], done: Ended) -> None:
        done({})

    def find_streams(self, topics: tuple[str, ...], done: FoundStreams) -> None:
        done({})

    def expired_streams(self) -> tuple[()]:
        return ()

    def touch_stream(self, topic: str, generation: int) -> None:
        pass

    def append(self, events: Sequence[Event], done: Done) -> None:
        self.deliver(self.commit(events))
        done([entry.position for entry in self.disk.entries[-len(events) :]])

    def commit(self, events: Sequence[Event]) -> list[Entry]:
        """Stores without delivering."""
        first = self._clock.take(len(events))
        entries = encode_entries(range(first, first + len(events)), events)
        self.disk.entries += entries
        self.disk.head = self.head
        return entries

    def read(
        self, selectors: tuple[str, ...], after: int, limit_bytes: int, done: Stretched
    ) -> None:
        self._ask(
            ("read", selectors, after), done, lambda: self._stretch(selectors, after, limit_bytes)
        )

    def read_stream(self, topic: str, after: int, limit_bytes: int, done: Stretched) -> None:
        self.read((topic,), after, limit_bytes, done)

    def read_content(self, topic: str, after: int, limit_bytes: int, done: Stretched) -> None:
        self.read((topic,), after, limit_bytes, done)

    def seek(self, selectors: tuple[str, ...], cursor: Cursor, done: Placed) -> None:
        self._ask(("seek", selectors, cursor), done, lambda: self._place(selectors, cursor))

    def newest(
        self, selectors: tuple[str, ...], count: int, limit_bytes: int, done: Stretched
    ) -> None:
        def find() -> Stretch:
            found: dict[int, Entry] = {}
            for topic in {name for one in self._matching(selectors) for name in one.topics}:
                for entry in self._matching((topic,))[-count:]:
                    found[entry.position] = entry
            return newest_within([found[at] for at in sorted(found)], limit_bytes, self.head)

        self._ask(("newest", selectors, count), done, find)

    def answer(self, count: int = 1_000_000) -> bool:
        """Answers what is held; says whether there was anything."""
        answered, self.held = self.held[:count], self.held[count:]
        for one in answered:
            one()
        return bool(answered)

    def apply_rules(self, history: HistoryOptions) -> None:
        pass

    def counters(self) -> dict[str, int]:
        return {}

    async def close(self) -> None:
        self.trouble = "closed"

    def _ask(
        self, question: tuple[Any, ...], done: Callable[[Any], None], find: Callable[[], Any]
    ) -> None:
        self.questions.append(question)

        found = find() if self.reads_at_once else None

        def give() -> None:
            failed: FastsseError = Unavailable("backbone", 1)
            done(failed if self.fails else find() if found is None else found)

        if self.holds:
            self.held.append(give)
        else:
            give()

    def _matching(self, selectors: tuple[str, ...]) -> list[Entry]:
        wanted = [compile_selector(text) for text in selectors]
        return [
            entry
            for entry in self.disk.entries
            if any(one.matches(topic) for one in wanted for topic in entry.topics)
        ]

    def _stretch(self, selectors: tuple[str, ...], after: int, limit_bytes: int) -> Stretch:
        found: list[Entry] = []
        room_bytes = limit_bytes
        for entry in self._matching(selectors):
            if entry.position <= after:
                continue
            room_bytes -= entry.frame.size
            if room_bytes < 0 and found:
                return Stretch(found, found[-1].position, False, self._evicted())
            found.append(entry)
        return Stretch(found, self.head, True, self._evicted())

    def _evicted(self) -> Evicted:
        through = self.disk.evicted_through
        return Evicted(through, ((through, through),) if through else ())

    def _place(self, selectors: tuple[str, ...], cursor: Cursor) -> int | None:
        if cursor.kind == "after":
            ids = [entry.position for entry in self.disk.entries if entry.own_id == cursor.text]
            return ids[0] if ids else None
        matching = self._matching(selectors)
        assert isinstance(cursor.value, int)
        if cursor.kind == "since":
            return None  # It knows no times.
        if not cursor.value:
            return self.head
        return matching[-cursor.value].position - 1 if len(matching) >= cursor.value else None
