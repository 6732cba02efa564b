"""Replays on their way to live while events are evicted, at random, against a running service.

Each trial publishes, opens a stream of several topics with a small receive buffer, pauses it, goes
on publishing so that events are evicted under it, and reads on until it is live. `judge` then holds
what the client received against what was published: whatever is missing, a gap event came before
the first event after it; and no gap event came without something missing.

More trials than the suite has:

    python -m tests.replays.trial --trials 1000
    python -m tests.replays.trial --trials 1000 --workers 2 --store /tmp/history.db
"""

import argparse
import asyncio
import contextlib
import json
import random
import socket
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from fastsse.positions import parse_id
from fastsse.selectors import compile_selector
from tests.eventstream import EventStream, Message
from tests.supervisor.service import Service

TIMEOUT_S: Final = 60
# How long a stream that may have nothing to read is read.
PAUSE_S: Final = 0.02
GAP: Final = "fastsse.gap"
# Each topic keeps so many events; the order of all that is kept is a mix of them.
RULES: Final = {"hot": 1, "warm": 6, "cold": 30}
OPTIONS: Final = (
    "--retry", "10ms", "--max-lag", "2MiB", "--max-lag-time", "30s",
)  # fmt: skip
# Far below what the rules keep, so that the bound on the whole evicts too.
SMALL_TOTAL: Final = "2MiB"


@dataclass(frozen=True)
class Published:
    """One event: its place in the order, its topics, its data without the filling."""

    place: int
    topics: tuple[str, ...]
    name: str


@dataclass
class Trial:
    """What was published in one trial, and the stream that was opened in it."""

    seed: int
    tag: str  # Part of each topic's name; no other trial has it.
    published: list[Published] = field(default_factory=list)
    begins: int = 0
    selectors: tuple[str, ...] = ()
    query: str = ""
    is_last: bool = False  # It asked for the newest N.
    received: list[Message] = field(default_factory=list)
    was_cut: bool = False  # The stream fell too far behind when it was live.

    @property
    def expected(self) -> list[Published]:
        """What the stream asked for."""
        wanted = [compile_selector(text) for text in self.selectors]
        return [
            one
            for one in self.published
            if one.place > self.begins
            if any(selector.matches(topic) for selector in wanted for topic in one.topics)
        ]


def judge(trial: Trial) -> list[str]:
    """What is wrong with what a stream received; nothing if it is exact."""
    if trial.is_last:
        # Where some of the newest are not kept, as many of those that are reach further back.
        first = next((one for one in trial.received if one.type != GAP), None)
        if first is not None:
            trial.begins = min(trial.begins, _place_of(first) - 1)
    expected = {one.place: one for one in trial.expected}
    wrong: list[str] = []
    last, gap_places, received = trial.begins, [], set()
    first_after_gap: list[tuple[int, int]] = []
    for message in trial.received:
        if message.type == GAP:
            gap_places.append(last)
            continue
        place = _place_of(message)
        name = message.data.partition(" ")[0]
        if place <= last:
            wrong.append(f"{name} came at or before {last}")
        if place not in expected or expected[place].name != name:
            wrong.append(f"{name} was not asked for")
        received.add(place)
        first_after_gap.append((place, len(gap_places)))
        last = place
    missing = [one for place, one in expected.items() if place not in received]
    due = [one for one in missing if not trial.was_cut or one.place < last]
    wrong += _untold(due, gap_places, first_after_gap)
    for number, gap in enumerate(gap_places):
        if not any(one.place > gap for one in missing):
            wrong.append(f"gap {number} of {len(gap_places)} came without a loss")
    if len(gap_places) > len(missing):
        wrong.append(f"{len(gap_places)} gaps for {len(missing)} missing events")
    return wrong


def _untold(
    missing: Sequence[Published], gaps: Sequence[int], received: Sequence[tuple[int, int]]
) -> Iterator[str]:
    """Missing events before whose place no gap came: each gap speaks of what lies after what was
    received before it."""
    for one in missing:
        told = next((count for place, count in received if place > one.place), len(gaps))
        if not any(gap < one.place for gap in gaps[:told]):
            yield f"{one.name} is missing without a gap"


class Publisher:
    """Publishes one event after the other on a connection of its own."""

    def __init__(self, url: str, trial: Trial) -> None:
        self._host, self._port = address(url)
        self._trial = trial
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def publish(self, topics: Sequence[str], size: int) -> Published:
        """Publishes one event of about a size."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        assert self._reader is not None
        name = f"{self._trial.seed}-{len(self._trial.published)}"
        body = f"{name} {'x' * size}".encode()
        query = "&".join(f"topic={quote(topic, safe='')}" for topic in topics)
        head = (
            f"POST /events?{query} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200"), answer
        length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        taken = json.loads(await self._reader.readexactly(length))
        place = parse_id(taken["id"].encode())
        assert place is not None
        one = Published(place, tuple(topics), name)
        self._trial.published.append(one)
        return one

    def close(self) -> None:
        """Ends its connection."""
        if self._writer is not None:
            self._writer.close()


class Subscriber:
    """A stream with a small receive buffer, that reads only when the test says so."""

    def __init__(self, url: str, query: str) -> None:
        self._host, self._port = address(url)
        self._query = query
        self._sock = socket.socket()
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._sock.setblocking(False)
        self._stream = EventStream()
        self._is_head_read = False
        self._head = b""
        self.is_ended = False

    @property
    def received(self) -> list[Message]:
        """Its events, gaps too."""
        return self._stream.events

    async def open(self) -> None:
        """Sends the request and reads the first bytes of the answer's body."""
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self._sock, (self._host, self._port))
        # HTTP/1.0: the body is not in chunks.
        await loop.sock_sendall(self._sock, f"GET /events?{self._query} HTTP/1.0\r\n\r\n".encode())
        while not self._is_head_read:
            await self.read(1000)

    async def read(self, size: int) -> bytes:
        """Reads at most so many bytes."""
        got = await asyncio.get_running_loop().sock_recv(self._sock, size)
        if not got:
            assert self._is_head_read
            self.is_ended = True
        if self._is_head_read:
            self._stream.feed(got)
            return got
        self._head += got
        head, _, body = self._head.partition(b"\r\n\r\n")
        if body:
            assert b" 200 " in head.partition(b"\r\n")[0], head
            self._is_head_read = True
            self._stream.feed(body)
        return got

    async def read_until(self, name: str) -> None:
        """Reads until an event has come."""
        async with asyncio.timeout(TIMEOUT_S):
            while not (
                self.is_ended or (self.received and self.received[-1].data.startswith(name + " "))
            ):
                await self.read(1 << 20)

    def close(self) -> None:
        """Ends it."""
        self._sock.close()


def address(url: str) -> tuple[str, int]:
    """Host and port of a URL."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


async def run(url: str, seed: int) -> Trial:
    """One trial. Topics are of this trial alone, so that many can follow each other; a stream of
    everything begins after an event of it."""
    chance = random.Random(seed)
    trial = Trial(seed, f"{seed}.{uuid.uuid4().hex[:8]}")
    topics = [f"{rule}/{trial.tag}/{n}" for rule in RULES for n in range(chance.choice([1, 1, 2]))]
    publisher = Publisher(url, trial)
    try:
        await publisher.publish((f"mark/{trial.tag}",), 1)
        await _publish_some(publisher, chance, topics, chance.randint(1, 60))
        _choose_subscription(chance, trial, topics)
        await _follow(url, chance, trial, publisher, topics)
    finally:
        publisher.close()
    return trial


async def _follow(
    url: str,
    chance: random.Random,
    trial: Trial,
    publisher: Publisher,
    topics: Sequence[str],
) -> None:
    subscriber = Subscriber(url, trial.query)
    try:
        await subscriber.open()
        for _ in range(chance.randint(1, 4)):
            await _publish_some(publisher, chance, topics, chance.randint(0, 40))
            for _ in range(chance.randint(0, 3)):
                # Reads a little only if there is something: a live stream may have nothing.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PAUSE_S):
                        await subscriber.read(chance.choice([1_000, 50_000, 400_000]))
        end = await publisher.publish((_matching_topic(trial, topics),), 1)
        await subscriber.read_until(end.name)
        trial.received, trial.was_cut = list(subscriber.received), subscriber.is_ended
    finally:
        subscriber.close()


def _matching_topic(trial: Trial, topics: Sequence[str]) -> str:
    wanted = [compile_selector(text) for text in trial.selectors]
    return next(topic for topic in topics if any(one.matches(topic) for one in wanted))


async def _publish_some(
    publisher: Publisher, chance: random.Random, topics: Sequence[str], count: int
) -> None:
    """Events of one topic in a row as a rule: a busy one."""
    while count > 0:
        topic = chance.choice(topics)
        size = chance.choice([10, 1_000, 60_000, 60_000])
        for _ in range(min(count, chance.choice([1, 2, 10, 40]))):
            await publisher.publish((topic,), size)
            count -= 1


def _choose_subscription(chance: random.Random, trial: Trial, topics: Sequence[str]) -> None:
    """What the stream asks for, and from where on."""
    kind = chance.choice(["topics", "topics", "template", "mixed", "everything"])
    if kind == "everything":
        selectors: tuple[str, ...] = ("*",)
    elif kind == "template":
        selectors = tuple({f"{topic.split('/')[0]}/{trial.tag}/{{n}}" for topic in topics})
    else:
        selectors = tuple(chance.sample(topics, chance.randint(1, len(topics))))
        if kind == "mixed":
            selectors += (f"cold/{trial.tag}/{{n}}",)
    trial.selectors = selectors
    after = chance.choice(trial.published)
    wanted = trial.expected
    cursor = chance.choice(["after", "earliest", "last"])
    if cursor == "earliest" and kind != "everything":
        text = "last_event_id=earliest"
    elif cursor == "last" and kind != "everything":
        count = chance.randint(1, 50)
        text = f"last={count}"
        trial.is_last = True
        trial.begins = wanted[-count].place - 1 if len(wanted) >= count else 0
    else:
        trial.begins = after.place
        text = f"last_event_id={_id_of(after.place)}"
    query = "&".join(f"topic={quote(selector, safe='')}" for selector in selectors)
    trial.query = f"{query}&{text}"


def _place_of(message: Message) -> int:
    return parse_id(message.last_event_id.encode()) or 0


def _id_of(place: int) -> str:
    return f"{place >> 64}-{place & (1 << 64) - 1}"


def configuration(folder: Path) -> Path:
    """A file with the rules."""
    path = folder / "replays.toml"
    path.write_text(
        "".join(
            f'[[topics]]\nmatch = "{name}/*"\nhistory_events = {count}\n'
            for name, count in RULES.items()
        )
    )
    return path


async def _main(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        words = ["--workers", str(arguments.workers), "--history-total", arguments.history_total]
        if arguments.store:
            words += ["--store", arguments.store]
        path = str(configuration(Path(folder)))
        service = await Service.start("--port", "0", "--config", path, *OPTIONS, *words)
        try:
            await service.wait()
            gaps = failed = 0
            for seed in range(arguments.seed, arguments.seed + arguments.trials):
                trial = await run(service.url, seed)
                gaps += sum(message.type == GAP for message in trial.received)
                if wrong := judge(trial):
                    failed += 1
                    print(f"seed {seed} {unquote(trial.query)}: {'; '.join(wrong[:5])}")
            print(f"{arguments.trials} trials, {gaps} gaps, {failed} failed")
        finally:
            await service.stop()
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--store", default="")
    parser.add_argument("--history-total", default=SMALL_TOTAL)
    asyncio.run(_main(parser.parse_args()))
