"""What reading a stream costs a Python program: `python -m bench.client_streams [EVENTS]`.

A program for each library reads the same kept events from a real server, one library after the
other in each round, the first of them another one each time. Counted is the CPU of the program
from its first event to its last. Printed are medians, and the median ratio to `fastsse.client` of
the same round with its first and last decile.
"""

import statistics
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from bench.client_rounds import command, costs_and_ratios, rounds_of

LIBRARIES: Final = ("fastsse.client", "httpx-sse", "aiosseclient")


async def read_fastsse(url: str) -> AsyncGenerator[str, None]:
    from fastsse.client import listen

    async with listen(url) as events:
        async for event in events:
            yield event.data


async def read_httpx_sse(url: str) -> AsyncGenerator[str, None]:
    import httpx
    import httpx_sse

    async with (
        httpx.AsyncClient(timeout=60) as client,
        httpx_sse.aconnect_sse(client, "GET", url) as source,
    ):
        async for event in source.aiter_sse():
            if event.data:
                yield event.data


async def read_aiosseclient(url: str) -> AsyncGenerator[str, None]:
    from aiosseclient import aiosseclient

    async for event in aiosseclient(url):
        if event.data:
            yield event.data


READERS: Final = dict(
    zip(LIBRARIES, (read_fastsse, read_httpx_sse, read_aiosseclient), strict=True)
)


async def read(library: str, url: str, count: int) -> None:
    """Reads so many events; prints the CPU of one in microseconds."""
    seen, begun = 0, 0.0
    # A generator that is left open has its library closed by the end of the loop, with errors.
    async with aclosing(READERS[library](url)) as stream:
        async for data in stream:
            if not seen:
                begun = time.process_time()
            seen += 1
            assert data
            if seen == count:
                break
    print((time.process_time() - begun) / count * 1e6)


async def measure(count: int) -> None:
    """Measures what reading EVENTS of a stream costs a Python program, with several libraries."""
    # Here, so that a reader has no more in its memory than its library.
    from fastsse.config import Config
    from fastsse.server import Server

    async with Server(Config(port=0, drain="0s", history_events=count)) as server:
        for n in range(count):
            server.publish("ticks", {"symbol": f"S{n % 300}", "price": n / 7, "volume": n * 3})
        url = f"{server.addresses[0]}/events?topic=ticks&since=earliest"
        rounds = await rounds_of("bench.client_streams", LIBRARIES, url, count)
    for library in LIBRARIES:
        costs, ratios = costs_and_ratios(rounds, library, "fastsse.client")
        low, *_, high = statistics.quantiles(ratios, n=10, method="inclusive")
        print(
            f"{library}: {statistics.median(costs):.2f} µs an event, "
            f"{statistics.median(ratios):.2f} x ({low:.2f} to {high:.2f})"
        )


main = command(LIBRARIES, 50_000, measure, read)

if __name__ == "__main__":
    main()
