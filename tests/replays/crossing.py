"""Features crossed with kills and reloads: a service of two workers with a store in a file.

Steps follow from the seed: batches with keys, delayed events, times to live, deletions, ends of
topics; streams of exact topics, templates, feeds and `*`, with filters, envelopes, types and
snapshots, that are cut and resumed; a worker or the hub is killed, or the service reloaded. In the
end the whole history says what was published, and each stream must have had it: once, in order,
and with a gap only where its topics evict.

    make soak-crossings ARGS="--seeds 50"
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fastsse.client import ClientError, ReceivedEvent, Refused, StreamView, listen
from fastsse.client.publisher import Publisher
from tests.http.raw import until
from tests.supervisor.service import Service, reload

TIMEOUT_S: Final = 120
FEW: Final = "few/1"  # Keeps 8 events; all others keep all.
TOPICS: Final = ("all/1", "all/2", "all/3", FEW)
RUN: Final = "run/1"
FEED: Final = (*(f"symbols/{n}" for n in range(150)), "all/1", "all/2")
MARK: Final = "mark"  # Every stream selects it: its last event says that all before it have come.
CONFIG: Final = f'[[topics]]\nmatch = "{FEW}"\nhistory_events = 8\n'
CHOICES: Final[tuple[tuple[tuple[str, ...] | str, StreamView | None], ...]] = (
    (("all/1", FEW, MARK), None),
    (("all/{n}", MARK), StreamView(envelope=True)),
    (("all/1", "all/2", "all/3", MARK), StreamView(filter='data.even || event == "mark"')),
    (("all/2", "all/3", MARK), StreamView(event=("x", "mark"))),
    ((*FEED, MARK), None),
    ("*", None),
)


@dataclass
class Told:
    """An event that a publisher sent, by its number."""

    topics: tuple[str, ...]
    type: str
    has_ttl: bool = False
    is_deleted: bool = False


@dataclass
class Reader:
    """A stream over all of its connections. `began` is the place from which it was promised all."""

    topics: tuple[str, ...] | str
    view: StreamView | None
    events: list[tuple[tuple[int, int], int]] = field(default_factory=list)
    began: tuple[int, int] = (0, 0)
    place: str = ""
    gaps: int = 0
    last: int = -1
    task: asyncio.Task[None] | None = None

    def wants(self, one: Told) -> bool:
        """Whether the reader selects an event, by topics and type."""
        if self.view is not None and self.view.event and one.type not in self.view.event:
            return False
        if self.topics == "*":
            return True
        return any(
            topic in self.topics or ("all/{n}" in self.topics and topic.startswith("all/"))
            for topic in one.topics
        )

    def passes(self, number: int, one: Told) -> bool:
        """As `wants`, by the filter too."""
        has_filter = self.view is not None and self.view.filter is not None
        return self.wants(one) and (not has_filter or number % 2 == 0 or one.type == "mark")

    async def read(self, url: str) -> None:
        """Reads until it is cancelled; goes on after the last event that it had."""
        start: dict[str, Any] = {"last_event_id": self.place} if self.place else {"last_each": 0}
        async with listen(url, self.topics, view=self.view, **start) as stream:
            async for event in stream:
                self.take(event)

    def take(self, event: ReceivedEvent) -> None:
        """One event as it came."""
        if event.gap is not None:
            self.gaps += 1
        elif not event.is_control:
            found = event.envelope.data if event.envelope is not None else event.json()
            number: int = found["n"]
            self.events.append((place_of(event.id), number))
            self.last = number
        self.place = event.id or self.place


def place_of(text: str) -> tuple[int, int]:
    """A position as numbers that sort as positions do."""
    ms, _, n = text.partition("-")
    return int(ms), int(n)


class Crossing:
    """One run. Raises AssertionError about what is wrong."""

    def __init__(self, service: Service, seed: int, pidfile: str) -> None:
        self.service, self.pidfile = service, pidfile
        self.rand = random.Random(seed)
        self.told: dict[int, Told] = {}
        self.ids: dict[int, str] = {}
        self.readers: list[Reader] = []
        self.run_reader = Reader((RUN,), None)
        self.steps: list[str] = []
        self.number = 0

    async def run(self, steps: int) -> None:
        """All of it."""
        async with Publisher(self.service.url, patience_s=TIMEOUT_S) as self.publisher:
            await self.publisher.publish(MARK, self._event((MARK,), "mark"), event="mark")
            for choice in CHOICES:
                await self._join(Reader(*choice))
            await self._join(self.run_reader)
            acts: list[Callable[[], Awaitable[None]]] = [
                *[self._publish] * 6, *[self._delay] * 3, *[self._delete] * 2, *[self._cut] * 3,
                self._kill_worker, self._kill_hub, self._reload,
            ]  # fmt: skip
            must = [self._kill_worker, self._kill_hub, self._reload, self._delay, self._delete]
            for act in self._plan(acts, must, steps):
                self.steps.append(act.__name__)
                await act()
            await self._finish()

    def _plan(self, acts: list[Any], must: list[Any], steps: int) -> list[Any]:
        plan = must + [self.rand.choice(acts) for _ in range(steps)]
        self.rand.shuffle(plan)
        return [self._publish, *plan]

    def _event(self, topics: Sequence[str], kind: str, **more: bool) -> dict[str, Any]:
        """The data of the next event."""
        self.number += 1
        self.told[self.number] = Told(tuple(topics), kind, **more)
        return {"n": self.number, "even": self.number % 2 == 0}

    # ---- steps ---------------------------------------------------------------------------------

    async def _publish(self) -> None:
        for _ in range(self.rand.randint(1, 6)):
            topics = self.rand.sample(TOPICS, self.rand.choice([1, 1, 2]))
            kind, has_ttl = self.rand.choice(["x", "y"]), self.rand.random() < 0.2
            data = self._event(topics, kind, has_ttl=has_ttl)
            receipt = await self.publisher.publish(
                topics, data, event=kind, key=f"k{self.number}", ttl=0.2 if has_ttl else None
            )
            self.ids[self.number] = receipt.id
        run = self._event((RUN,), "x")
        await self.publisher.publish(RUN, run, event="x", key=f"k{self.number}")

    async def _delay(self) -> None:
        for _ in range(3):
            topics, kind = (self.rand.choice(TOPICS[:3]),), self.rand.choice(["x", "y"])
            data = self._event(topics, kind)
            delay_s = self.rand.uniform(0, 1)
            await self.publisher.publish(
                topics, data, event=kind, key=f"k{self.number}", delay=delay_s
            )

    async def _delete(self) -> None:
        kept = [
            number
            for number in self.ids
            if FEW not in self.told[number].topics and not self.told[number].is_deleted
        ]
        if kept:
            number = self.rand.choice(kept)
            self.told[number].is_deleted = True
            # An answer that was lost with the process: then it is gone at the second try.
            with contextlib.suppress(Refused):
                await self._sure(
                    lambda: self.publisher.delete_event(
                        self.told[number].topics[0], self.ids[number]
                    )
                )

    async def _sure(self, act: Callable[[], Awaitable[Any]]) -> Any:
        """Repeats what has no key until it is answered."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                try:
                    return await act()
                except Refused:
                    raise
                except ClientError:  # A process was killed under it.
                    await asyncio.sleep(0.02)

    async def _cut(self) -> None:
        reader = self.rand.choice(self.readers)
        await self._leave(reader)
        if self.rand.random() < 0.5:
            await self._publish()
        self._follow(reader)

    async def _kill_worker(self) -> None:
        worker = self.rand.choice(self.service.children()["worker"])
        os.kill(worker, signal.SIGKILL)
        await until(lambda: len(set(self.service.children()["worker"]) - {worker}) == 2)

    async def _kill_hub(self) -> None:
        (hub,) = self.service.children()["hub"]
        os.kill(hub, signal.SIGKILL)
        await until(lambda: self.service.children()["hub"] not in ([], [hub]))

    async def _reload(self) -> None:
        status, said = await reload("--pidfile", self.pidfile)
        assert status == 0, said

    # ---- readers -------------------------------------------------------------------------------

    async def _join(self, reader: Reader) -> None:
        """Begins behind the newest event, so that it is promised all that follows."""
        topics = reader.topics if isinstance(reader.topics, tuple) else ("all/1",)
        data = self._event(topics[:1], "mark")
        first = await self.publisher.publish(topics[:1], data, event="mark", key=f"k{self.number}")
        reader.place, reader.began = first.id, place_of(first.id)
        self.readers.append(reader)
        self._follow(reader)

    def _follow(self, reader: Reader) -> None:
        reader.task = asyncio.create_task(reader.read(self.service.url))

    async def _leave(self, reader: Reader) -> None:
        assert reader.task is not None
        if reader.task.done():
            reader.task.result()  # Raises what it failed with.
        reader.task.cancel()
        await asyncio.gather(reader.task, return_exceptions=True)

    # ---- the end -------------------------------------------------------------------------------

    async def _finish(self) -> None:
        await self._sure(self._all_published)
        await self._sure(lambda: self.publisher.end_topic(RUN))
        end = self._event((MARK,), "mark")
        await self.publisher.publish(MARK, end, event="mark", key=f"k{self.number}")
        last = self.number
        followers = [one for one in self.readers if one is not self.run_reader]
        await until(lambda: all(one.last == last or _failed(one) for one in followers))
        truth = Reader("*", None, place="earliest")
        self._follow(truth)
        await until(lambda: truth.last == last or _failed(truth))
        assert self.run_reader.task is not None
        async with asyncio.timeout(TIMEOUT_S):
            await self.run_reader.task  # It is over by itself.
        history = Reader((RUN,), None)
        async with listen(self.service.url, RUN, since="earliest") as stream:
            async for event in stream:
                history.take(event)
        for reader in (*followers, truth):
            await self._leave(reader)
        self._judge(truth, history)

    async def _all_published(self) -> None:
        """Raises ClientError while delayed events wait."""
        if await self.publisher.list_scheduled():
            raise ClientError("Delayed events wait.")

    def _judge(self, truth: Reader, history: Reader) -> None:
        place_by_number = {number: place for place, number in truth.events}
        assert len(place_by_number) == len(truth.events), "an event was stored twice"
        for number, one in self.told.items():
            if not (one.has_ttl or one.is_deleted or FEW in one.topics):
                assert number in place_by_number, f"{number} was accepted and is not stored"
        assert not any(self.told[number].is_deleted for number in place_by_number)
        for reader in self.readers:
            self._judge_reader(reader, place_by_number)
        runs = [number for _, number in self.run_reader.events]
        assert runs == [number for _, number in history.events][-len(runs) :]
        assert self.run_reader.gaps == 0

    def _judge_reader(self, reader: Reader, places: dict[int, tuple[int, int]]) -> None:
        got = [place for place, _ in reader.events]
        assert got == sorted(set(got)), f"{reader.topics}: out of order, or twice"
        numbers = {number for _, number in reader.events}
        assert len(numbers) == len(got), f"{reader.topics}: twice"
        strange = [n for n in numbers if not reader.passes(n, self.told[n])]
        assert not strange, f"{reader.topics}: {strange} are not of this stream"
        may_evict = reader.topics == "*" or FEW in reader.topics
        assert may_evict or not reader.gaps, f"{reader.topics}: {reader.gaps} gaps"
        missing = [
            number
            for number, place in places.items()
            if place > reader.began
            and number not in numbers
            and reader.passes(number, self.told[number])
            and not self.told[number].has_ttl
        ]
        assert not missing, f"{reader.topics}: {missing} are missing"


def _failed(reader: Reader) -> bool:
    assert reader.task is not None
    return reader.task.done()


async def run_seed(service: Service, seed: int, pidfile: str, steps: int) -> None:
    """One seed. A failure names it, and its steps."""
    crossing = Crossing(service, seed, pidfile)
    try:
        await crossing.run(steps)
    except BaseException as error:
        error.add_note(f"seed {seed}: {' '.join(crossing.steps)}")
        raise


def options(folder: Path) -> list[str]:
    """Flags of the service. The file is new for each seed, so that topics are."""
    (folder / "crossing.toml").write_text(CONFIG)
    return [
        "--workers", "2", "--store", f"sqlite:{folder / 'history.db'}", "--retry", "10ms",
        "--config", str(folder / "crossing.toml"), "--pidfile", str(folder / "pid"),
    ]  # fmt: skip


async def _main(arguments: argparse.Namespace) -> None:
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            flags = options(Path(folder))
            service = await Service.start("--port", "0", "--drain", "200ms", *flags)
            try:
                await service.wait()
                await run_seed(service, seed, f"{folder}/pid", arguments.steps)
            finally:
                await service.stop()
        print(f"seed {seed} is right", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--steps", type=int, default=60)
    asyncio.run(_main(parser.parse_args()))
