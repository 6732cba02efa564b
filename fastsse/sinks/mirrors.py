"""Mirrors: every event, or those of a filter, is copied to another system, in order.

The place of the mirror is stored when the other system has acknowledged a whole batch. After a kill
a batch may be written again from its beginning, so each event is written at least once, and in
order. A consumer recognises a repeat by the event's position. A stream of Redis refuses repeats
itself.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import orjson

from fastsse.backoff import Backoff
from fastsse.control.service import ControlStore
from fastsse.entries import Entry
from fastsse.errors import FastsseError
from fastsse.log import get_logger
from fastsse.redis.health import Outage
from fastsse.sinks.envelopes import EntryFilter, envelope_of
from fastsse.sinks.log_reader import LogReader
from fastsse.sources.deadletters import DeadLetters, Letter
from fastsse.sources.source import SourceAway

__all__ = ["Mirror", "PlaceStore", "Record", "Target", "kept_place"]

log = get_logger("mirrors")
BATCH_EVENTS: Final = 1_000
BATCH_BYTES: Final = 1024 * 1024
_PLACE: Final = "mirror/"


class Record(NamedTuple):
    """An event as it is written.

    Attributes:
        position: `<unix-ms>-<n>`, its place in the one order.
        topic: its first topic.
        value: its envelope, as JSON.
    """

    position: str
    topic: str
    value: bytes


class Target(Protocol):
    """The other system. Loop thread only.

    Attributes:
        trouble: why a write does not end, for example because a client library reconnects by
            itself; None if all is well.
    """

    @property
    def trouble(self) -> str | None: ...

    async def open(self) -> str | None:
        """Connects. Returns the position of the last record that the other system has from this
        mirror, or None if it can't be asked. Raises SourceAway."""

    async def write(self, records: Sequence[Record]) -> Sequence[tuple[int, str]]:
        """Writes records. Returns when each was acknowledged or permanently refused: the numbers of
        the refused ones, with the reason. Raises SourceAway; then some may have been written."""

    async def close(self) -> None:
        """Closes the connection. Idempotent."""


class PlaceStore:
    """Stores the place of a mirror.

    Arguments:
        store: that of the node.
        name: of the mirror.
    """

    def __init__(self, store: ControlStore, name: str) -> None:
        self.name: Final = name
        self._store = store
        self._key = _PLACE + name

    def keep(self, place: int) -> None:
        """Stores that everything up to the place was written."""
        self._store.put(self._key, str(place).encode())


class Mirror:
    """Writes the events of one rule. Loop thread only.

    Arguments:
        wants: whether an event is copied.
        reader: of the log, where the mirror continues.
        target: the other system.
        places: keeps the place; names the mirror.
        letters: takes records that were permanently refused.
        counts: shared by all sinks.
    """

    def __init__(
        self,
        wants: EntryFilter,
        reader: LogReader,
        target: Target,
        places: "PlaceStore",
        letters: DeadLetters,
        counts: "Counter[str]",
    ) -> None:
        self._name = places.name
        self._wants = wants
        self._reader = reader
        self._target = target
        self._places = places
        self._letters = letters
        self._counts = counts
        self._outage = Outage(
            "A mirror can't be written.", "A mirror is written again.", mirror=places.name
        )
        self._trouble: str | None = None

    @property
    def trouble(self) -> str | None:
        """Why nothing is written now, or None."""
        return self._trouble or self._target.trouble

    def lag_ms(self, now_ms: int) -> int:
        """The age of the newest copied event, in ms; 0 if all events were copied."""
        return 0 if self._reader.is_at_end else max(0, now_ms - (self._reader.place >> 64))

    async def run(self) -> None:
        """Runs until it is cancelled."""
        # A new mirror begins with the events after its first start.
        self._keep(self._reader.place)
        backoff = Backoff()
        try:
            while True:
                await backoff.wait()
                try:
                    last = await self._target.open()
                    if last is not None:
                        self._reader.place = max(self._reader.place, place_of(last))
                    await self._copy(backoff)
                except (SourceAway, FastsseError) as error:
                    self._fails(str(error))
                    await self._target.close()
        finally:
            await self._target.close()

    async def _copy(self, backoff: Backoff) -> None:
        while True:
            stretch = await self._reader.read()
            if stretch.evicted_through > self._reader.place:
                self._counts["mirrors_gaps"] += 1
                log.error("Events were evicted before they were mirrored.", mirror=self._name)
            await self._write_all(stretch.entries)
            self._keep(stretch.through)
            backoff.reset()

    async def _write_all(self, entries: Sequence[Entry]) -> None:
        batch: list[Record] = []
        size_bytes, place = 0, self._reader.place
        for entry in entries:
            place = entry.position
            if not self._wants(entry):
                continue
            record = _record(entry)
            batch.append(record)
            size_bytes += len(record.value)
            if len(batch) >= BATCH_EVENTS or size_bytes >= BATCH_BYTES:
                await self._write(batch)
                self._keep(place)
                batch, size_bytes = [], 0
        if batch:
            await self._write(batch)
            self._keep(place)

    async def _write(self, batch: Sequence[Record]) -> None:
        refused = await self._target.write(batch)
        for index, why in refused:
            record = batch[index]
            self._letters.add(Letter(record.position, why, record.value))
        await self._letters.settled()
        self._counts["mirrors_refused"] += len(refused)
        self._counts["mirrors_events"] += len(batch) - len(refused)
        self._trouble = None
        self._outage.is_over()

    def _keep(self, place: int) -> None:
        self._reader.place = max(self._reader.place, place)
        self._places.keep(self._reader.place)

    def _fails(self, why: str) -> None:
        self._trouble = why
        self._counts["mirrors_failures"] += 1
        self._outage.lasts(why, asyncio.get_running_loop().time())


def kept_place(store: ControlStore, name: str) -> int | None:
    """The place where a mirror continues; None for a new one."""
    kept = store.get(_PLACE + name)
    return None if kept is None else int(kept)


def place_of(position: str) -> int:
    """A position as the number that the log has. Raises ValueError."""
    time_ms, _, number = position.partition("-")
    return int(time_ms) << 64 | int(number)


def _record(entry: Entry) -> Record:
    envelope = envelope_of(entry)
    return Record(envelope["position"], entry.topics[0], orjson.dumps(envelope))
