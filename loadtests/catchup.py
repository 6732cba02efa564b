"""`python -m loadtests.catchup`: checks that every reader reaches the newest event after a burst.

Each round starts a server that shares one CPU with a busy program. Publishers send as
fast as they are answered, to readers of every kind: fast, slow, with small buffers, reconnecting,
of one topic, of several, and of all. Then publishing stops, and each reader has `--bound` seconds
to reach the last event of its topics. A lost wake-up anywhere leaves a reader behind
for ever. A round is repeated with its seed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import shlex
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

Place = tuple[int, int]
TOPICS = [f"t{n}" for n in range(8)]
# Above 60,000 bytes an event does not fit into the small receive buffers.
SIZES = (1, 100, 2_000, 60_000)
STARTS_WITHIN_S = 300.0
LOOK_S = 0.05
ID = re.compile(rb"^(?:id: )(\d+)-(\d+)\r?$", re.MULTILINE)
SELECTIONS = ([["*"], ["t{n}"], TOPICS] + [[topic] for topic in TOPICS]) * 2 + [
    [TOPICS[n], TOPICS[n - 1]] for n in range(8)
]
# A process that uses all of its CPU for as long as its standard input is open.
HOG = "import os, threading\nthreading.Thread(target=lambda: (os.read(0, 1), os._exit(0))).start()"
HOG += "\nwhile True: pass"


class Server:
    """`fastsse serve` and a busy program on one CPU. The server gets half of it, or a tenth."""

    def __init__(self, options: list[str], log: Path, cpu: int, niceness: int) -> None:
        self._niceness = niceness
        self._options = options
        self._log = log
        self._cpu = cpu

    async def __aenter__(self) -> str:
        """Returns the address, once it serves."""
        pinned = ["taskset", "-c", str(self._cpu)]
        serve = [sys.executable, "-P", "-m", "fastsse", "serve", "--port", "0"]
        with self._log.open("wb") as out:
            self._process = await asyncio.create_subprocess_exec(
                *pinned, "nice", "-n", str(self._niceness),
                *serve, "--log-format", "json", *self._options,
                stdout=out, stderr=out,
            )  # fmt: skip
        self._processes = [self._process]
        try:
            async with asyncio.timeout(STARTS_WITHIN_S):
                url = await self._address()
        except BaseException:
            await self.__aexit__()
            raise
        hog = [*pinned, sys.executable, "-c", HOG]
        self._processes.append(
            await asyncio.create_subprocess_exec(*hog, stdin=asyncio.subprocess.PIPE)
        )
        return url

    async def _address(self) -> str:
        while "addresses" not in (text := self._log.read_text()):
            if self._process.returncode is not None:
                raise RuntimeError(text)
            await asyncio.sleep(LOOK_S)
        line = next(line for line in text.splitlines() if "addresses" in line)
        return str(json.loads(line)["addresses"][0])

    async def __aexit__(self, *_: object) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        await asyncio.gather(*(process.wait() for process in self._processes))


class Rush:
    """One round: the published events, and the place of each reader."""

    def __init__(self, url: str, chance: random.Random) -> None:
        address = urlsplit(url)
        self.host, self.port = str(address.hostname), int(address.port or 0)
        self.chance = chance
        self.last: dict[str, Place] = {}
        self.published = self.reconnects = 0
        self.is_over = False

    async def publish(self, number: int, until_s: float) -> None:
        """Publishes until a time, and then once more to a topic of its own."""
        chance = random.Random(self.chance.random())
        while time.monotonic() < until_s:
            await self._post_some(chance, until_s)
        topic = TOPICS[number % len(TOPICS)]
        while not await self._post_one(topic):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)

    async def _post_one(self, topic: str) -> bool:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection(self.host, self.port)
            with contextlib.closing(writer):
                return await self._post(reader, writer, topic, b"last")
        return False

    async def _post_some(self, chance: random.Random, until_s: float) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection(self.host, self.port)
            with contextlib.closing(writer):
                while time.monotonic() < until_s:
                    data = b"x" * chance.choices(SIZES, (40, 40, 15, 1))[0]
                    if not await self._post(reader, writer, chance.choice(TOPICS), data):
                        return

    async def _post(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, topic: str, data: bytes
    ) -> bool:
        writer.write(
            b"POST /events?topic=%b HTTP/1.1\r\nHost: %b\r\nContent-Type: text/plain\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (topic.encode(), self.host.encode(), len(data), data)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200"):
            return False
        ms, _, n = json.loads(body)["id"].partition("-")
        self.last[topic] = max(self.last.get(topic, (0, 0)), (int(ms), int(n)))
        self.published += 1
        return True


class Reader:
    """One reader that resumes from its last id whenever its stream ends."""

    def __init__(self, rush: Rush, number: int) -> None:
        self._rush = rush
        self._chance = random.Random(rush.chance.random())
        self.selectors = SELECTIONS[number % len(SELECTIONS)]
        self.kind = ("fast", "slow", "returning")[number % 3]
        self.place: Place = (0, 0)
        self.is_open = False
        self.opened = 0

    @property
    def goal(self) -> Place:
        """The last event of its topics."""
        topics = self.selectors if self.selectors[0] in TOPICS else TOPICS
        return max(self._rush.last.get(topic, (0, 0)) for topic in topics)

    async def run(self) -> None:
        """Reads until it is cancelled."""
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._read_stream()
            self.is_open = False
            self._rush.reconnects += 1
            await asyncio.sleep(LOOK_S)

    async def _read_stream(self) -> None:
        self.opened += 1
        async with self._connected() as (sock, loop):
            query = [("topic", one) for one in self.selectors]
            if self.place != (0, 0):
                query.append(("last_event_id", f"{self.place[0]}-{self.place[1]}"))
            if self._chance.random() < 0.3:
                query.append(("heartbeat", "1"))
            request = f"GET /events?{urlencode(query)} HTTP/1.1\r\nHost: {self._rush.host}\r\n\r\n"
            await loop.sock_sendall(sock, request.encode())
            leaves_at = self._chance.randint(10_000, 400_000) if self.kind == "returning" else 0
            await self._read_from(sock, loop, leaves_at)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[socket.socket, asyncio.AbstractEventLoop]]:
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setblocking(False)
            if self.kind == "slow":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            await loop.sock_connect(sock, (self._rush.host, self._rush.port))
            yield sock, loop

    async def _read_from(
        self, sock: socket.socket, loop: asyncio.AbstractEventLoop, leaves_at: int
    ) -> None:
        rest, read = b"", 0
        while data := await loop.sock_recv(sock, 65_536):
            self.is_open = True
            read += len(data)
            complete, _, rest = (rest + data).rpartition(b"\n\n")
            for ms, n in ID.findall(complete + b"\n"):
                self.place = max(self.place, (int(ms), int(n)))
            if not self._rush.is_over:
                if leaves_at and read > leaves_at:
                    return
                if self.kind == "slow":
                    await asyncio.sleep(self._chance.random() * 0.2)


async def run_round(seed: int, arguments: argparse.Namespace, log: Path) -> list[str]:
    """Returns a line for each reader that is behind at the end."""
    chance = random.Random(seed)
    options = shlex.split(arguments.options)
    async with Server(options, log, arguments.cpu, 10 * (seed % 2)) as url:
        rush = Rush(url, chance)
        readers = [Reader(rush, number) for number in range(arguments.readers)]
        running = [asyncio.ensure_future(reader.run()) for reader in readers]
        until_s = time.monotonic() + arguments.seconds
        count = max(arguments.publishers, len(TOPICS))
        await asyncio.gather(*(rush.publish(number, until_s) for number in range(count)))
        rush.is_over = True
        over_s = time.monotonic()
        while any(reader.place < reader.goal for reader in readers):
            if time.monotonic() - over_s > arguments.bound:
                break
            await asyncio.sleep(LOOK_S)
        took_s = time.monotonic() - over_s
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    behind = [
        f"seed {seed}: {reader.kind} {reader.selectors} at {reader.place}, goal {reader.goal},"
        f" open {reader.is_open}, opened {reader.opened} times"
        for reader in readers
        if reader.place < reader.goal
    ]
    print(
        f"seed {seed}: {rush.published} published, {rush.reconnects} reconnects, all at the newest"
        f" after {took_s:.2f} s, {len(behind)} behind",
        flush=True,
    )
    return behind


async def run(arguments: argparse.Namespace) -> int:
    """Returns the exit status."""
    behind: list[str] = []
    for seed in range(arguments.seed, arguments.seed + arguments.rounds):
        behind += await run_round(seed, arguments, arguments.log)
    print("\n".join(behind) or f"{arguments.rounds} rounds: no reader stayed behind.")
    return 1 if behind else 0


def main() -> None:
    """Reads the options and runs."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.catchup", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the first round")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=3.0, help="of publishing in each round")
    parser.add_argument("--bound", type=float, default=60.0, help="seconds to reach the newest")
    parser.add_argument("--readers", type=int, default=60)
    parser.add_argument("--publishers", type=int, default=12)
    parser.add_argument(
        "--cpu", type=int, default=0, help="that the server and the busy program share"
    )
    parser.add_argument("--log", type=Path, required=True, help="file for the server's log")
    parser.add_argument("--options", default="", help='of the server, such as "--workers 2"')
    sys.exit(asyncio.run(run(parser.parse_args())))


if __name__ == "__main__":
    main()
