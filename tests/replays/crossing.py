"""Features crossed with kills and reloads: a service of two workers with a store in a file, or two
such services that share a Redis.

Steps follow from the seed: batches with keys, private and delayed events, times to live, deletions,
ends of topics; streams of exact topics, templates, feeds and `*`, with and without grants, with
filters, envelopes, types and snapshots, that are cut and resumed, at any node; slow streams of
topics with each lag policy; a worker or the hub is killed, or a service reloaded. In the end the
whole history says what was published, and each stream must have had it: once, in order, and with a
gap only where its topics evict or its policy skips.

    make soak-crossings ARGS="--seeds 50"
    make soak-crossings ARGS="--seeds 50 --redis"
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from fastsse.client import ClientError, Refused, StreamView, listen
from fastsse.client.publisher import Publisher
from tests.auth.minting import SECRET
from tests.http.raw import until
from tests.redis.server import running
from tests.replays.crossing_readers import (
    FEW,
    LAGGED,
    TOKEN,
    Reader,
    SlowReader,
    Told,
    place_of,
)
from tests.supervisor.service import Service, reload

TIMEOUT_S: Final = 120
TOPICS: Final = ("all/1", "all/2", "all/3", FEW)
RUN: Final = "run/1"
FEED: Final = (*(f"symbols/{n}" for n in range(150)), "all/1", "all/2")
MARK: Final = "mark"  # Every stream selects it: its last event says that all before it have come.
CONFIG: Final = f'[[topics]]\nmatch = "{FEW}"\nhistory_events = 8\n' + "".join(
    f'[[topics]]\nmatch = "{topic}"\nlag_policy = "{topic.removeprefix("lag/")}"\n'
    for topic in LAGGED
)
# What a slow reader is stopped for: well above what its socket and `max_lag` hold.
BIG: Final = "x" * 30_000
BIG_COUNT: Final = 12
STOPPED_S: Final = 0.2
CHOICES: Final[tuple[tuple[tuple[str, ...] | str, StreamView | None], ...]] = (
    (("all/1", FEW, MARK), None),
    (("all/{n}", MARK), StreamView(envelope=True)),
    (("all/1", "all/2", "all/3", MARK), StreamView(filter='data.even || event == "mark"')),
    (("all/2", "all/3", MARK), StreamView(event=("x", "mark"))),
    ((*FEED, MARK), None),
    ("*", None),
)


class Crossing:
    """One run. Raises AssertionError about what is wrong."""

    def __init__(self, services: Sequence[Service], seed: int, pidfiles: Sequence[str]) -> None:
        self.services = list(zip(services, pidfiles, strict=True))
        self.urls = [service.url for service in services]
        self.rand = random.Random(seed)
        self.publishers: list[Publisher] = []
        self.origins: dict[int, Publisher] = {}
        self.told: dict[int, Told] = {}
        self.ids: dict[int, str] = {}
        self.readers: list[Reader] = []
        self.run_reader = Reader((RUN,), None)
        self.steps: list[str] = []
        self.number = 0

    async def run(self, steps: int) -> None:
        """All of it."""
        async with AsyncExitStack() as stack:
            for url in self.urls:
                publisher = Publisher(url, token=TOKEN, patience_s=TIMEOUT_S)
                self.publishers.append(await stack.enter_async_context(publisher))
            await self.publisher.publish(MARK, self._event((MARK,), "mark"), event="mark")
            for number, (topics, view) in enumerate(CHOICES):
                await self._join(Reader(topics, view, is_granted=number % 2 == 0))
                await self._join(Reader(topics, view, is_granted=number % 2 == 1))
            for topic in LAGGED:
                await self._join(SlowReader((topic, MARK), None))
            await self._join(self.run_reader)
            acts: list[Callable[[], Awaitable[None]]] = [
                *[self._publish] * 6, *[self._delay] * 3, *[self._delete] * 2, *[self._cut] * 3,
                *[self._stop_slow] * 2, self._kill_worker, self._kill_hub, self._reload,
            ]  # fmt: skip
            must = [
                self._kill_worker, self._kill_hub, self._reload, self._delay, self._delete,
                self._stop_slow,
            ]  # fmt: skip
            for act in self._plan(acts, must, steps):
                self.steps.append(act.__name__)
                await act()
            await self._finish()

    @property
    def publisher(self) -> Publisher:
        """That of any node."""
        return self.rand.choice(self.publishers)

    @property
    def slow_readers(self) -> list[SlowReader]:
        """The readers that can be stopped."""
        return [one for one in self.readers if isinstance(one, SlowReader)]

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
            is_private, publisher = self.rand.random() < 0.3, self.publisher
            data = self._event(topics, kind, has_ttl=has_ttl, is_private=is_private)
            receipt = await publisher.publish(
                topics, data, event=kind, key=f"k{self.number}", ttl=0.2 if has_ttl else None,
                private=is_private,
            )  # fmt: skip
            self.ids[self.number] = receipt.id
            self.origins[self.number] = publisher  # It knows of the event.
        run = self._event((RUN,), "x")
        await self.publisher.publish(RUN, run, event="x", key=f"k{self.number}")

    async def _delay(self) -> None:
        for _ in range(3):
            topics, kind = (self.rand.choice(TOPICS[:3]),), self.rand.choice(["x", "y"])
            is_private, delay_s = self.rand.random() < 0.3, self.rand.uniform(0, 1)
            data = self._event(topics, kind, is_private=is_private)
            await self.publisher.publish(
                topics, data, event=kind, key=f"k{self.number}", delay=delay_s, private=is_private
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
                    lambda: self.origins[number].delete_event(
                        self.told[number].topics[0], self.ids[number]
                    )
                )

    async def _stop_slow(self) -> None:
        """More than slow readers may lag, while they read nothing."""
        for reader in self.slow_readers:
            reader.goes_on.clear()
        for topic in LAGGED:
            for _ in range(BIG_COUNT):
                data = {**self._event((topic,), "x"), "filling": BIG}
                await self.publisher.publish(topic, data, event="x", key=f"k{self.number}")
        await asyncio.sleep(STOPPED_S)
        for reader in self.slow_readers:
            reader.goes_on.set()

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
        service, _ = self.rand.choice(self.services)
        worker = self.rand.choice(service.children()["worker"])
        os.kill(worker, signal.SIGKILL)
        await until(lambda: len(set(service.children()["worker"]) - {worker}) == 2)

    async def _kill_hub(self) -> None:
        service, _ = self.rand.choice(self.services)
        (hub,) = service.children()["hub"]
        os.kill(hub, signal.SIGKILL)
        await until(lambda: service.children()["hub"] not in ([], [hub]))

    async def _reload(self) -> None:
        _, pidfile = self.rand.choice(self.services)
        status, said = await reload("--pidfile", pidfile)
        assert status == 0, said

    # ---- readers -------------------------------------------------------------------------------

    async def _join(self, reader: Reader) -> None:
        """Begins behind the newest event, so that it is promised all that follows."""
        data = self._event(("begins",), "mark")
        first = await self.publisher.publish("begins", data, event="mark", key=f"k{self.number}")
        if isinstance(reader, SlowReader):
            reader.goes_on.set()
        reader.place, reader.began = first.id, place_of(first.id)
        self.readers.append(reader)
        self._follow(reader)

    def _follow(self, reader: Reader) -> None:
        reader.task = asyncio.create_task(reader.read(self.rand.choice(self.urls)))

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
        truth = Reader(("*",), None, place="earliest")
        self._follow(truth)
        await until(lambda: truth.last == last or _failed(truth))
        assert self.run_reader.task is not None
        async with asyncio.timeout(TIMEOUT_S):
            await self.run_reader.task  # It is over by itself.
        history = Reader((RUN,), None)
        async with listen(self.urls[0], RUN, since="earliest", token=TOKEN) as stream:
            async for event in stream:
                history.take(event)
        for reader in (*followers, truth):
            await self._leave(reader)
        self._judge(truth, history)

    async def _all_published(self) -> None:
        """Raises ClientError while delayed events wait."""
        for publisher in self.publishers:
            if await publisher.list_scheduled():
                raise ClientError("Delayed events wait.")

    def _judge(self, truth: Reader, history: Reader) -> None:
        place_by_number = {number: place for place, number in truth.events}
        assert len(place_by_number) == len(truth.events), "an event was stored twice"
        for number, one in self.told.items():
            if not (one.has_ttl or one.is_deleted or FEW in one.topics):
                assert number in place_by_number, f"{number} was accepted and is not stored"
        assert not any(self.told[number].is_deleted for number in place_by_number)
        for reader in self.readers:
            reader.check(self.told, place_by_number)
        runs = [number for _, number in self.run_reader.events]
        assert runs == [number for _, number in history.events][-len(runs) :]
        assert not self.run_reader.gaps


def _failed(reader: Reader) -> bool:
    assert reader.task is not None
    return reader.task.done()


async def run_seed(
    services: Sequence[Service], seed: int, pidfiles: Sequence[str], steps: int
) -> str:
    """One seed; returns what became of slow readers. A failure names the seed, and its steps."""
    crossing = Crossing(services, seed, pidfiles)
    try:
        await crossing.run(steps)
    except BaseException as error:
        error.add_note(f"seed {seed}: {' '.join(crossing.steps)}")
        raise
    slow = [f"{one.policy} {len(one.gaps)}/{one.cuts}" for one in crossing.slow_readers]
    return f"gaps/cuts of slow readers: {', '.join(slow)}"


def options(folder: Path, store: str, node: int = 0) -> list[str]:
    """Flags of a service. The file is new for each seed, so that topics are."""
    (folder / "crossing.toml").write_text(CONFIG)
    return [
        "--workers", "2", "--store", store, "--retry", "10ms", "--drain", "200ms", "--port", "0",
        "--config", str(folder / "crossing.toml"), "--pidfile", pidfile_of(folder, node),
        "--jwt-key", SECRET, "--anonymous", "--max-lag", "64KiB", "--notsent-lowat", "1KiB",
        "--history-bytes", "64MiB", "--history-events", "100000", "--history-total", "128MiB",
        "--memory-limit", "512MiB",
    ]  # fmt: skip


def pidfile_of(folder: Path, node: int = 0) -> str:
    """The pidfile of a service."""
    return str(folder / f"pid{node}")


async def run_once(folder: Path, seed: int, steps: int, stack: AsyncExitStack, redis: bool) -> str:
    """One seed with services of its own."""
    store, nodes = f"sqlite:{folder / 'history.db'}", 1
    if redis:
        store, nodes = stack.enter_context(running(folder / "redis")).url, 2
    services = []
    for node in range(nodes):
        services.append(await Service.start(*options(folder, store, node)))
        stack.push_async_callback(services[-1].stop)
    for service in services:
        await service.wait()
    return await run_seed(services, seed, [pidfile_of(folder, n) for n in range(nodes)], steps)


async def _main(arguments: argparse.Namespace) -> None:
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            async with AsyncExitStack() as stack:
                said = await run_once(
                    Path(folder), seed, arguments.steps, stack, redis=arguments.redis
                )
        print(f"seed {seed} is right; {said}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--redis", action="store_true", help="two nodes on a Redis")
    asyncio.run(_main(parser.parse_args()))
