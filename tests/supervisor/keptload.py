"""Publishers on kept connections, while a service is reloaded again and again.

    python -m tests.supervisor.keptload --reloads 50 --publishes 1000000

starts a service of two workers, and says how many publishes were answered, how many connections
ended with an announcement (`Connection: close`), and what went wrong: a reset, an end before the
answer, a status other than 200. Its exit status is 0 when nothing did.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

from tests.supervisor.service import Service, reload

PUBLISH = b"POST /events?topic=t HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\ndata"


class Publishers:
    """Each sends a publish when the one before was answered, on one connection as long as that is
    kept. `pause_s` is between them, for connections that are mostly idle."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._host, self._port = address.hostname, address.port
        self.answered = self.announced = 0
        self.faults: Counter[str] = Counter()
        self.is_over = False

    async def run(self, pause_s: float = 0.0) -> None:
        """One publisher, until it is over."""
        while not self.is_over:
            try:
                reader, writer = await asyncio.open_connection(self._host, self._port)
            except OSError as error:
                self.faults[f"connect: {error!r}"] += 1
                continue
            try:
                await self._publish(reader, writer, pause_s)
            except (OSError, asyncio.IncompleteReadError) as error:
                self.faults[f"publish {type(error).__name__}"] += 1
            finally:
                writer.close()

    async def _publish(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pause_s: float
    ) -> None:
        while not self.is_over:
            writer.write(PUBLISH)
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length))
            if not head.startswith(b"HTTP/1.1 200 "):
                self.faults[f"status {head[9:12].decode()}"] += 1
            self.answered += 1
            if b"\r\nConnection: close\r\n" in head:
                self.announced += 1
                return
            if pause_s:
                await asyncio.sleep(pause_s)


async def load(service: Service, pidfile: str, reloads: int, publishes: int) -> Publishers:
    """Publishes so often, and reloads so often, at even distances."""
    publishers = Publishers(service.url)
    tasks = [asyncio.create_task(publishers.run()) for _ in range(8)]
    # Idle for longer than a busy one ever is, and shorter than the grace.
    tasks += [asyncio.create_task(publishers.run(0.05 * number)) for number in range(1, 9)]
    for number in range(1, reloads + 1):
        status, said = await reload("--pidfile", pidfile)
        assert status == 0, said
        while publishers.answered < publishes * number // reloads:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    publishers.is_over = True
    await asyncio.gather(*tasks)
    return publishers


async def main(reloads: int, publishes: int) -> int:
    """The command."""
    with tempfile.TemporaryDirectory() as folder:
        pidfile = str(Path(folder) / "pid")
        words = ("--port", "0", "--workers", "2", "--pidfile", pidfile, "--access-lines", "0")
        service = await (await Service.start(*words)).wait()
        began_s = time.monotonic()
        try:
            done = await load(service, pidfile, reloads, publishes)
        finally:
            await service.stop()
    took_s = time.monotonic() - began_s
    print(
        f"{reloads} reloads in {took_s:.0f} s: {done.answered} publishes answered, "
        f"{done.announced} connections ended with an announcement, faults: {dict(done.faults)}"
    )
    return 1 if done.faults else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--reloads", type=int, default=50)
    parser.add_argument("--publishes", type=int, default=1_000_000)
    chosen = parser.parse_args()
    sys.exit(asyncio.run(main(chosen.reloads, chosen.publishes)))
