# ruff: noqa: ASYNC240 — files are what this is about.
"""One seed: some lives of a server on one history, and how each of them ends."""

import asyncio
import logging
import sqlite3
import tempfile
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Protocol
from unittest.mock import patch

from fastsse._core import Sender
from fastsse.backbone.sqlite import HistoryError, SqliteBackbone, position_lease
from fastsse.config import Config
from fastsse.errors import FastsseError, StreamRefused
from fastsse.events import Event
from fastsse.hub import Hub, Published
from fastsse.subscriptions import Cursor, Subscription
from tests.backbone.simulation.disk import DAMAGES, Image, SimulatedDisk
from tests.backbone.simulation.readers import MARK, Ledger, Reader, Violation

START_MS = 1_700_000_000_000
DEADLINE_S = 30
TOPICS = ("a", "b", "c/1", "c/2")
SELECTIONS: Sequence[tuple[str, ...]] = (("a",), ("a", "b"), ("c/{n}",), ("*",))
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
FAULTS = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC)


class World:
    """What outlives a server: the image of its files, the clients, the ledger.

    Arguments:
        seed: drives everything.

    Attributes:
        story: what happened, a line each, for the report of a failure.
    """

    def __init__(self, seed: int) -> None:
        self.chance = chance = Random(seed)
        self.story: list[str] = []
        self.image: Image = {}
        self.ledger = Ledger()
        self.readers = [Reader(topics) for topics in SELECTIONS]
        self.now_ms = self._latest_ms = START_MS
        self.ack = chance.choice(("written", "synced", "synced", "received"))
        self.keeps_all = chance.random() < 0.5
        self.config = Config(history_age="3650d")
        if not self.keeps_all:
            self.config = Config(
                history_events=chance.choice((3, 10, 40)), store_total=0, history_age="1h"
            )
        self.total_bytes = 0 if self.keeps_all else chance.choice((0, 3_000))

    async def run(self) -> None:
        """Some lives; raises Violation."""
        is_innocent = True
        with tempfile.TemporaryDirectory(dir=scratch()) as folder:
            self._boot_id = Path(folder, "boot_id")
            self._boot_id.write_text("start")
            for number in range(self.chance.randint(2, 4)):
                place = Path(folder, str(number))
                place.mkdir()
                is_innocent = await self._live(place / "history.db", is_innocent)

    def move_clock(self, by_ms: int) -> None:
        """It goes back, too, but never further than positions are leased ahead."""
        self._latest_ms = max(self._latest_ms, self.now_ms)
        self.now_ms = max(self.now_ms + by_ms, self._latest_ms - 5_000)

    async def _live(self, path: Path, is_innocent: bool) -> bool:
        """One life; returns whether nothing that may be reported happened in it or at its end."""
        disk = SimulatedDisk(path, self.image)
        gaps = sum(reader.gaps for reader in self.readers)
        position_lease.boot_id.cache_clear()
        with disk.watched(), patch.object(position_lease, "_BOOT_ID", self._boot_id):
            try:
                life = Life(self, disk)
            except HistoryError as error:
                return self._begin_again(error, is_innocent)
            try:
                is_innocent &= await life.live()
                reported = sum(reader.gaps for reader in self.readers) - gaps
                if is_innocent and self.keeps_all and reported:
                    raise Violation(f"{reported} gaps of nothing")
                return is_innocent & await self._end(life, disk)
            finally:
                await life.close()

    def _begin_again(self, error: HistoryError, is_innocent: bool) -> bool:
        """The file is refused, so its operator takes it away."""
        if is_innocent:
            raise Violation(f"a whole file was refused: {error}")
        self.story.append(f"refused: {error.why}")
        # That takes longer than positions are leased ahead.
        self.move_clock(60_000)
        self.image = {ending: raw for ending, raw in self.image.items() if ending == "-commits"}
        return False

    async def _end(self, life: "Life", disk: SimulatedDisk) -> bool:
        """How a server ends, and what happens to its files before the next one."""
        chance = self.chance
        how = chance.choice(("closed", "killed", "killed", "without power"))
        damages = []
        if chance.random() < (0.3 if how == "closed" else 0.6):
            damages = chance.sample(sorted(DAMAGES), chance.choice((1, 1, 1, 2)))
            if "no file" in damages:
                damages = ["no file"]  # Without the record nothing is left that could know.
        if how == "without power" and damages and self.ack == "synced":
            # The record may be a second late then, which nothing else can make up for.
            backbone = life.backbone
            await life.until(lambda: backbone._file.commits.is_synced or bool(backbone.trouble))
        if how == "closed":
            await life.close()
            self.image = disk.killed()
        elif how == "killed":
            self.image = disk.killed()
        else:
            self.image = disk.without_power(chance)
        for damage in damages:
            DAMAGES[damage](chance, self.image)
        self.story.append(f"{how}; {', '.join(damages) or 'no damage'}")
        promises_all = how == "closed" or self.ack == "synced"
        promises_all |= self.ack == "written" and how == "killed"
        if how == "without power":
            self._boot_id.write_text(f"start {len(self.story)}")
        return promises_all and not damages


class Life:
    """One server, from its start until it ends."""

    def __init__(self, world: World, disk: SimulatedDisk) -> None:
        self._world = world
        self._disk = disk
        self._chance = world.chance
        self._loop = asyncio.get_running_loop()
        self.backbone = SqliteBackbone(
            str(disk.path), world.config, world.ack, world.total_bytes, self._now_ms, disk.connect
        )
        self._sender = Sender(max_connections=20)
        self._sender.start()
        self._hub = Hub(
            self._sender, self.backbone, world.config, world.config, now_ms=self._now_ms
        )
        self._is_unready = False
        self._hub.channels.on_unready = lambda: setattr(self, "_is_unready", True)
        self._loop.add_reader(self._sender.notice_fd, self._hub.streams.read_notices)
        self._is_closed = False
        self._pending = 0

    def _now_ms(self) -> int:
        return self._world.now_ms

    async def live(self) -> bool:
        """Publishes and reads; returns whether the disk was well all the time."""
        was_well = True
        for reader in self._world.readers:
            self._open(reader)
        if not await self._check():
            return False
        for _ in range(self._chance.randint(1, 4)):
            self._world.move_clock(self._chance.choice((0, 1, 50, 20_000, -5_000)))
            if self._chance.random() < 0.2:
                was_well = False
                self._disk.fail(self._chance.choice(FAULTS), self._chance.random() < 0.5)
                await self._publish_some()
                self._disk.repair()
            await self._publish_some()
            if not await self._check():
                return False
        # What is under way when it ends was not acknowledged.
        for _ in range(self._chance.randint(0, 3)):
            self._publish(1)
        return was_well

    def _open(self, reader: Reader) -> None:
        cursor = Cursor("after", reader.last_id) if reader.last_id else Cursor("earliest")
        theirs = reader.open()
        try:
            self._hub.streams.open(
                Subscription(reader.topics, cursor), HEAD, False, theirs.fileno(), None
            )
            self._hub.streams.wake()
        except StreamRefused:
            theirs.close()
            reader.close()
            return
        theirs.detach()

    async def _publish_some(self) -> None:
        for _ in range(self._chance.randint(1, 6)):
            self._publish(self._chance.choice((1, 1, 2, 5)))
            if self._chance.random() < 0.5:
                await self.until(lambda: self._pending == 0)
        await self.until(lambda: self._pending == 0)

    def _publish(self, count: int) -> None:
        chance, ledger = self._chance, self._world.ledger
        published = []
        for _ in range(count):
            topics = tuple(chance.sample(TOPICS, chance.choice((1, 1, 2))))
            own_id = f"own-{len(ledger.events)}" if chance.random() < 0.1 else None
            size = chance.choice((20, 100, 100, 2_000, 9_000))
            published.append(ledger.publish(topics, own_id, size))
        events = [Event(one.topics, one.data, id=one.own_id) for one in published]
        self._pending += 1

        def done(outcome: Published | FastsseError) -> None:
            self._pending -= 1
            if not isinstance(outcome, FastsseError):
                ledger.acknowledge(published, outcome._positions)

        self._hub.publish(events, done)

    async def _check(self) -> bool:
        """Has all readers catch up and judges them; False: the file takes no events any more."""
        mark = self._world.ledger.publish((MARK,), None, 1)
        outcomes: list[Published | FastsseError] = []
        for _ in range(400):
            self._hub.publish([Event(MARK, mark.data)], outcomes.append)
            await self.until(lambda: bool(outcomes))
            outcome = outcomes.pop()
            if not isinstance(outcome, FastsseError):
                break
            await asyncio.sleep(0.002)
        else:
            self._world.story.append(f"takes nothing: {self.backbone.trouble}")
            return False
        self._world.ledger.acknowledge([mark], outcome._positions)
        for reader in self._world.readers:
            await self.until(partial(self._has_mark, reader, mark.data))
            reader.judge(self._world.ledger)
        return True

    def _has_mark(self, reader: Reader, data: str) -> bool:
        """Whether a client has a mark. One whose stream was ended comes back."""
        if reader.has_mark(data):
            return True
        if not reader.is_open:
            reader.judge(self._world.ledger)
            self._open(reader)
        return False

    async def until(self, condition: Callable[[], bool]) -> None:
        """Lets all go on until it holds."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                if self._is_unready:
                    self._is_unready = self._hub.sweep(self._now_ms())
                for reader in self._world.readers:
                    reader.read()
                if condition():
                    return
                await asyncio.sleep(0.0005)

    async def close(self) -> None:
        """Ends all that this process has of it. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self._disk.repair()
        for reader in self._world.readers:
            reader.read()
        self._loop.remove_reader(self._sender.notice_fd)
        self._hub.streams.abandon()
        self._sender.stop()
        self._hub.channels.on_unready = lambda: None
        for reader in self._world.readers:
            reader.close()
        await self.backbone.close()


class Seeded(Protocol):
    """One seed: how it acknowledges, what happened, and how it is run."""

    ack: str
    story: list[str]

    async def run(self) -> None:
        """Raises Violation."""


def run_seed(seed: int, make: Callable[[int], Seeded] = World) -> tuple[int, str | None]:
    """One seed, in a loop of its own; returns its report when a promise was not kept."""
    logging.disable(logging.CRITICAL)
    world = make(seed)
    try:
        asyncio.run(world.run())
    except Exception:
        story = "\n  ".join([f"acknowledged when {world.ack}", *world.story])
        return seed, f"{traceback.format_exc()}\n  {story}"
    finally:
        position_lease.boot_id.cache_clear()
        logging.disable(logging.NOTSET)
    return seed, None


def scratch() -> str | None:
    """Memory, where it is there: what a sync means is simulated."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
