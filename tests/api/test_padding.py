"""A stream that asks for padding and heartbeats passes through a proxy that forwards at 4 KiB."""

import asyncio

from tests.doctor.badproxy import BadProxy, Manners
from tests.http.conftest import Start
from tests.http.raw import get

HELD_BYTES = 4096
WAIT_S = 60


async def test_padded_heartbeats_bring_events_through_a_proxy_that_holds_4_kib(
    start: Start,
) -> None:
    server = await start(min_heartbeat="1s", max_pad="8KiB")
    proxy = BadProxy(Manners(holds_bytes=HELD_BYTES), server.addresses[0])
    async with proxy, asyncio.timeout(WAIT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(get("/events?topic=a&pad=8KiB&heartbeat=1s"))
        got = await reader.readuntil(b": fastsse\n")
        server.publish("a", "hello")
        while b"data: hello\n\n" not in got:
            got += await reader.read(65_536)
        writer.close()
