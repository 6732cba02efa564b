"""Streams through every proxy here that are idle for minutes, and receive the next event.

    python -m tests.deploy.idle --minutes 10

Each proxy has a stream over HTTP/1.1 and one over HTTP/2. The heartbeat is the default of 15 s. A
line for each stream says what it received; the exit status is 1 if one of them has ended.
"""

import argparse
import asyncio
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from fastsse.config import Config
from fastsse.server import Server
from tests.deploy.front import Curl, front, stream
from tests.deploy.proxies import program
from tests.deploy.test_recipes import OPTIONS, address

VERSIONS = ("--http1.1", "--http2")


async def run(minutes: float) -> bool:
    """Whether every stream received the event that was published at the end."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = await stack.enter_async_context(Server(Config(**OPTIONS)))
        opened: dict[str, Curl] = {}
        for proxy in ("nginx", "haproxy", "caddy"):
            if program(proxy) is None:
                print(f"{proxy}: not here")
                continue
            (folder / proxy).mkdir()
            site = await stack.enter_async_context(front(proxy, folder / proxy, address(server)))
            for version in VERSIONS:
                curl = stream(site, "/events?topic=news", version)
                opened[f"{proxy} {version}"] = await stack.enter_async_context(curl)
        for reader in opened.values():
            await reader.saw(": fastsse")
        await asyncio.sleep(minutes * 60)
        server.publish("news", "after the silence")
        for name, reader in opened.items():
            if not reader.has_ended:
                await reader.saw("data: after the silence")
            comments = sum(line.startswith(":") for line in reader.lines)
            end = "ended" if reader.has_ended else "received the event"
            print(f"{name}: {comments} heartbeats, {end}")
        return not any(reader.has_ended for reader in opened.values())


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    return 0 if asyncio.run(run(parser.parse_args().minutes)) else 1


if __name__ == "__main__":
    sys.exit(main())
