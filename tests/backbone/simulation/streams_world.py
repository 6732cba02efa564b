# ruff: noqa: ASYNC240, SIM102 — files are what this is about.
"""One seed with durable streams: some lives of a server on a file, with kills and losses of power.

Each life begins with a look at everything: what was acknowledged is there, what was deleted stays
away, each offset that was given reads on exactly or is reported as lost. What a change that was
under way has become is found out by trying: all of it or nothing, in the order of the changes.
"""

import asyncio
import sqlite3
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from fastsse._core import Sender
from fastsse.backbone.sqlite import SqliteBackbone, position_lease
from fastsse.config import Config
from fastsse.directives import Producer, producer_key
from fastsse.errors import FastsseError
from fastsse.hub import Hub
from fastsse.streams.content import rendered
from fastsse.streams.forks import ForkRequest
from fastsse.streams.reading import Chunk, ContentGone
from fastsse.streams.requests import (
    Appended,
    AppendRequest,
    Created,
    CreateRequest,
    StreamGone,
    StreamMissing,
)
from fastsse.streams.service import DurableStreams
from fastsse.streamstate import StreamRow
from tests.backbone.simulation.disk import Image, SimulatedDisk
from tests.backbone.simulation.readers import Violation
from tests.backbone.simulation.streams_model import Model, Seen, Step, Stream
from tests.backbone.simulation.world import DEADLINE_S, FAULTS, START_MS, run_seed, scratch

NAMES = ("a", "b", "c", "d", "e")
TYPE = "text/plain"
SIZES = (5, 50, 50, 700, 6_000)


class StreamsWorld:
    """What outlives a server: the files, and what was acknowledged.

    Arguments:
        seed: drives everything.

    Attributes:
        story: what happened, a line each, for the report of a failure.
    """

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.story: list[str] = []
        self.image: Image = {}
        self.ack = self.chance.choice(("synced", "synced", "written"))
        self.now_ms = START_MS
        self.model = Model()
        # After each acknowledged change; the first is what the life began with.
        self.history: list[Model] = [Model()]
        self.under_way: list[Step] = []
        self.seen: dict[str, StreamRow] = {}
        self.promises_all = True
        # Offsets of lost content, each with its stream's name and generation.
        self.lost: list[tuple[str, int, int]] = []
        self.count = 0

    async def run(self) -> None:
        """Some lives; raises Violation."""
        with tempfile.TemporaryDirectory(dir=scratch()) as folder:
            self._boot_id = Path(folder, "boot_id")
            self._boot_id.write_text("start")
            for number in range(self.chance.randint(2, 5)):
                place = Path(folder, str(number))
                place.mkdir()
                await self._live(place / "history.db")

    async def _live(self, path: Path) -> None:
        disk = SimulatedDisk(path, self.image)
        position_lease.boot_id.cache_clear()
        with disk.watched(), patch.object(position_lease, "_BOOT_ID", self._boot_id):
            life = StreamsLife(self, disk)
            try:
                await life.check()
                await life.live()
                await self._end(life, disk)
            finally:
                await life.close()

    async def _end(self, life: "StreamsLife", disk: SimulatedDisk) -> None:
        how = self.chance.choice(("closed", "killed", "without power", "without power"))
        life.is_over = how != "closed"
        self.seen = dict(life.rows) if life.is_over else {}
        if how == "closed":
            await life.close()
            self.image = disk.killed()
        elif how == "killed":
            self.image = disk.killed()
        else:
            self.image = disk.without_power(self.chance)
            self._boot_id.write_text(f"start {len(self.story)}")
        self.promises_all = how != "without power" or self.ack == "synced"
        self.story.append(how)

    def acknowledge(self, step: Step) -> None:
        """A change was made for certain."""
        self.model.apply(step)
        self.history.append(self.model.copy())
        self.under_way = [one for one in self.under_way if one is not step]

    def settle(self, view: dict[str, Seen]) -> None:
        """Finds what is left of the life before. Raises Violation if it can't be."""
        last = self.history[-1]
        found = [self.model] if self.promises_all else self.history
        after = last.copy()
        candidates = list(found)
        for step in self.under_way:
            after = after.copy()
            after.apply(step)
            candidates.append(after)
        self._has_seen(candidates if self.promises_all else [], view)
        for one in reversed(candidates):
            if one.view(NAMES) == view:
                self._note_lost(last, one)
                self.model, self.under_way = one, []
                self.history = [one.copy()]
                return
        raise Violation(f"{view} is none of {[one.view(NAMES) for one in candidates[-4:]]}")

    def _has_seen(self, candidates: list[Model], view: dict[str, Seen]) -> None:
        """What readers saw before the end was not rolled back."""
        if not candidates:
            return
        for name, row in self.seen.items():
            if view[name] == "absent" and not any(
                step.op == "delete" and step.name == name for step in self.under_way
            ):
                raise Violation(f"{name} was seen and is gone")
            if isinstance(view[name], tuple) and row.closed and not view[name][1]:
                raise Violation(f"{name} was seen closed")
        for name in NAMES:
            stream = self.model.streams.get(name)
            if (
                name not in self.seen
                and stream is not None
                and view[name] != "absent"
                and self.seen
            ):
                raise Violation(f"the deletion of {name} was seen and is gone")

    def _note_lost(self, before: Model, left: Model) -> None:
        for name, stream in before.streams.items():
            now = left.streams.get(name)
            if now is not None and now.generation == stream.generation:
                gone = stream.offsets.keys() - now.offsets.keys()
                self.lost += [(name, stream.generation, place) for place in gone]


class StreamsLife:
    """One server, from its start until it ends."""

    def __init__(self, world: StreamsWorld, disk: SimulatedDisk) -> None:
        self._world = world
        self._disk = disk
        self._chance = world.chance
        self._loop = asyncio.get_running_loop()
        config = Config(history_age="3650d")
        self.backbone = SqliteBackbone(
            str(disk.path), config, world.ack, 0, self._now_ms, disk.connect
        )
        self._sender = Sender(max_connections=20)
        self._sender.start()
        self._hub = Hub(self._sender, self.backbone, config, config, now_ms=self._now_ms)
        self._loop.add_reader(self._sender.notice_fd, self._hub.streams.read_notices)
        self._streams = DurableStreams(self._hub, 1, self._now_ms)
        self._is_closed = False
        self._ending: list[asyncio.Task[None]] = []
        # From here on no answer is heard.
        self.is_over = False

    def _now_ms(self) -> int:
        return self._world.now_ms

    @property
    def rows(self) -> dict[str, StreamRow]:
        """What readers see at this moment."""
        return self.backbone.streams.rows

    # -- looking ----------------------------------------------------------------------------------

    async def check(self) -> None:
        """Looks at everything, as readers do."""
        world = self._world
        view = {name: await self._view(name) for name in NAMES}
        for name, row in world.seen.items():
            now = self.rows.get(name)
            if world.promises_all and now is not None and now.generation == row.generation:
                if now.tail < row.tail:
                    raise Violation(f"{name} was seen up to {row.tail}, and ends at {now.tail}")
        world.settle(view)
        for name, stream in world.model.streams.items():
            row = self.rows.get(name)
            if row is None:
                raise Violation(f"{name} has no row")
            stream.generation = row.generation
            if not stream.is_hidden:
                await self._check_offsets(name, stream)
        for name, generation, place in world.lost:
            stream = world.model.streams.get(name)
            if stream is not None and stream.generation == generation and not stream.is_hidden:
                if await self._read(name, place) is not None:
                    raise Violation(f"{place} of {name} was lost and is read")
        world.history = [world.model.copy()]

    async def _check_offsets(self, name: str, stream: Stream) -> None:
        for place, length in stream.offsets.items():
            text = await self._read(name, place)
            if text != stream.text[length:]:
                raise Violation(f"{name} behind {place}: {text!r}, not {stream.text[length:]!r}")

    async def _view(self, name: str) -> Seen:
        found = await self._call(self._streams.find, name)
        if isinstance(found, StreamMissing):
            return "absent"
        if isinstance(found, StreamGone):
            return "hidden"
        text = await self._read(name, 0)
        if text is None:
            raise Violation(f"{name} can't be read")
        return text, bool(found.closed)

    async def _read(self, name: str, after: int) -> str | None:
        """The text behind an offset; None: it is reported as lost."""
        text = b""
        while True:
            row = await self._call(self._streams.find, name)
            assert isinstance(row, StreamRow), row
            chunk = await self._call(self._streams.read, name, row, after)
            if isinstance(chunk, ContentGone):
                return None
            if not isinstance(chunk, Chunk):
                raise Violation(f"a read of {name} failed: {chunk!r}")
            text += rendered(row.config, chunk.contents)
            after = chunk.next
            if chunk.is_up_to_date:
                return text.decode()

    async def _call(self, function: Callable[..., None], *arguments: Any) -> Any:
        answer: asyncio.Future[Any] = self._loop.create_future()
        function(*arguments, answer.set_result)
        async with asyncio.timeout(DEADLINE_S):
            return await answer

    # -- changing ---------------------------------------------------------------------------------

    async def live(self) -> None:
        """Changes streams, some while the disk fails."""
        for _ in range(self._chance.randint(1, 12)):
            self._world.now_ms += self._chance.choice((0, 1, 50, 2_000))
            is_ill = self._chance.random() < 0.1
            if is_ill:
                code = self._chance.choice(FAULTS)
                # A commit for which there is no room is not carried out.
                is_after = code != sqlite3.SQLITE_FULL and self._chance.random() < 0.5
                self._disk.fail(code, is_after)
            steps = [asyncio.create_task(self._make(step)) for step in self._steps()]
            await asyncio.gather(*steps)
            if is_ill:
                self._disk.repair()
                await self._until(lambda: self.backbone.trouble is None)
        # What is under way when it ends was not acknowledged.
        self._ending = [asyncio.create_task(self._make(step)) for step in self._steps()]
        for _ in range(self._chance.choice((0, 1, 5, 40))):
            await asyncio.sleep(0.0002)

    def _steps(self) -> list[Step]:
        """Changes that do not concern each other."""
        chance, model = self._chance, self._world.model
        open_ones = [
            name for name, one in model.streams.items() if not one.is_hidden and not one.is_closed
        ]
        free = [name for name in NAMES if name not in model.streams]
        visible = [name for name, one in model.streams.items() if not one.is_hidden]
        kind = chance.random()
        if free and (kind < 0.25 or not visible):
            return [Step("create", chance.choice(free), self._text())]
        if free and kind < 0.35:
            return [Step("fork", chance.choice(free), source=chance.choice(visible))]
        if visible and kind < 0.47:
            return [Step("delete", chance.choice(visible))]
        if open_ones and kind < 0.55:
            return [Step("close", chance.choice(open_ones))]
        count = chance.randint(0, len(open_ones))
        return [Step("append", name, self._text()) for name in chance.sample(open_ones, count)]

    def _text(self) -> str:
        self._world.count += 1
        return f"{self._world.count} ".ljust(self._chance.choice(SIZES), "x")

    async def _make(self, step: Step) -> None:
        world = self._world
        world.under_way.append(step)
        outcome = await self._asked(step)
        if self.is_over:
            return  # The server has ended.
        if isinstance(outcome, Created):
            step.generation, step.place = outcome.row.generation, outcome.row.tail
        elif isinstance(outcome, Appended) and step.op == "append":
            step.place = outcome.row.tail
        elif isinstance(outcome, FastsseError):
            # It was refused, and is taken out before the file is used again.
            world.under_way = [one for one in world.under_way if one is not step]
            return
        if isinstance(outcome, Appended) and outcome.is_closed:
            raise Violation(f"{step.name} was closed")
        world.acknowledge(step)
        if step.op == "append" and self._chance.random() < 0.3:
            again = await self._asked(step)
            if isinstance(again, Appended) and not again.is_repeat:
                raise Violation(f"{step.name} took {step.text[:10]} twice")

    async def _asked(self, step: Step) -> Any:
        streams, publish = self._streams, self._hub.publish
        if step.op == "delete":
            return await self._call(streams.delete, step.name, publish)
        if step.op in ("create", "fork"):
            fork = ForkRequest(step.source, None, 0) if step.source else None
            body = step.text.encode()
            request = CreateRequest(step.name, TYPE, None, None, False, False, body, fork)
            return await self._call(streams.create, request, publish)
        closes = step.op == "close"
        # One for each append, so that what became of the one before does not matter.
        key = producer_key(step.name, step.text.partition(" ")[0].encode())
        producer = None if closes else Producer(key, 0, 0, refuses_gaps=True)
        kind = None if closes else TYPE
        asked = AppendRequest(step.name, kind, step.text.encode(), closes, None, producer)
        return await self._call(streams.append, asked, publish)

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.0005)

    async def close(self) -> None:
        """Ends all that this process has of it. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self._disk.repair()
        self._streams.close()
        self._loop.remove_reader(self._sender.notice_fd)
        self._hub.streams.abandon()
        self._sender.stop()
        await self.backbone.close()
        for task in self._ending:
            task.cancel()  # What has no answer now gets none.
        for outcome in await asyncio.gather(*self._ending, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome


#: As `run_seed`, with durable streams.
run_streams_seed = partial(run_seed, make=StreamsWorld)
