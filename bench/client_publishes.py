"""What a publish costs a Python program: `python -m bench.client_publishes [EVENTS]`.

A program for each way publishes events to a real server, each after the answer to the one before,
over one connection; one way after the other in each round, the first of them another one each time.
`raw` writes a request that was made before to a socket of asyncio and reads the answer unparsed.
Counted is the CPU of the program. Printed are medians, and the median ratio to `raw` of the same
round with the least and the greatest.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final
from urllib.parse import urlsplit

from bench.client_rounds import command, costs_and_ratios, rounds_of

WARM_UP: Final = 100
DATA: Final = {"symbol": "S7", "price": 171.5, "volume": 3}
BODY: Final = b'{"symbol":"S7","price":171.5,"volume":3}'
JSON: Final = {"Content-Type": "application/json"}
Publish = Callable[[], Awaitable[Any]]


async def raw(url: str) -> AsyncGenerator[Publish, None]:
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = f"POST /events?topic=ticks HTTP/1.1\r\nHost: {address.netloc}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    request = head.encode() + BODY

    async def publish() -> None:
        writer.write(request)
        assert (await reader.read(65_536)).endswith(b"}\n")

    yield publish
    writer.close()


async def ours(url: str) -> AsyncGenerator[Publish, None]:
    from fastsse.client import AsyncClient

    async with AsyncClient(url) as client:
        yield lambda: client.publish("ticks", DATA)


async def ours_by_httpx(url: str) -> AsyncGenerator[Publish, None]:
    import httpx

    from fastsse.client import AsyncClient

    async with httpx.AsyncClient() as http, AsyncClient(url, client=http) as client:
        yield lambda: client.publish("ticks", DATA)


async def by_httpx(url: str) -> AsyncGenerator[Publish, None]:
    import httpx

    async with httpx.AsyncClient() as client:
        target = f"{url}/events?topic=ticks"
        yield lambda: client.post(target, content=BODY, headers=JSON)


async def by_aiohttp(url: str) -> AsyncGenerator[Publish, None]:
    import aiohttp

    async with aiohttp.ClientSession() as session:
        target = f"{url}/events?topic=ticks"

        async def publish() -> None:
            async with session.post(target, data=BODY, headers=JSON) as answer:
                await answer.read()

        yield publish


WAYS: Final = {
    "raw": raw,
    "fastsse.client": ours,
    "fastsse.client by httpx": ours_by_httpx,
    "aiohttp": by_aiohttp,
    "httpx": by_httpx,
}


async def publish(way: str, url: str, count: int) -> None:
    """Publishes so many events; prints the CPU of one in microseconds."""
    async with aclosing(WAYS[way](url)) as made:
        send = await anext(made)
        for _ in range(WARM_UP):
            await send()
        begun = time.process_time()
        for _ in range(count):
            await send()
        print((time.process_time() - begun) / count * 1e6)


async def measure(count: int) -> None:
    """Measures what a publish costs a Python program, in several ways, each with EVENTS of them."""
    from fastsse.config import Config
    from fastsse.server import Server

    names = tuple(WAYS)
    config = Config(port=0, drain="0s", allow_anonymous_publish=True)
    async with Server(config) as server:
        rounds = await rounds_of("bench.client_publishes", names, server.addresses[0], count)
    for way in names:
        costs, ratios = costs_and_ratios(rounds, way, "raw")
        print(
            f"{way}: {statistics.median(costs):.1f} µs a publish ({min(costs):.1f} to "
            f"{max(costs):.1f}), {statistics.median(ratios):.2f} x ({min(ratios):.2f} to "
            f"{max(ratios):.2f})"
        )


main = command(tuple(WAYS), 5_000, measure, publish)

if __name__ == "__main__":
    main()
