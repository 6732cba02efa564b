"""Devices that send datagrams, and a page that shows them: `python -m examples.gateway.app`.

A device sends `NAME METRIC VALUE`, such as `boiler-3 temperature 71.5`, to UDP port 9000:

    echo "boiler-3 temperature 71.5" > /dev/udp/127.0.0.1/9000
"""

import asyncio
import math
import random
import re
import time
from pathlib import Path

import fastsse
from examples.site import Example, run

PORT = 9000
READING = re.compile(rb"([\w-]{1,40}) (\w{1,40}) (-?\d{1,12}(?:\.\d{1,12})?)\s*", re.ASCII)


class Gateway(asyncio.DatagramProtocol):
    """Publishes each reading to `devices/NAME/METRIC`; other datagrams are left out."""

    def __init__(self, hub: fastsse.Server) -> None:
        self._hub = hub

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        reading = READING.fullmatch(data)
        if reading is None:
            return
        device, metric = reading[1].decode(), reading[2].decode()
        event = {"device": device, "metric": metric, "value": float(reading[3])}
        self._hub.publish(f"devices/{device}/{metric}", event)


async def simulate(transport: asyncio.DatagramTransport, address: tuple[str, int]) -> None:
    """Ten boilers that send their temperature and pressure four times a second."""
    while True:
        for number in range(10):
            heat = 60 + 10 * math.sin(time.monotonic() / 7 + number) + random.gauss(0, 0.3)
            transport.sendto(f"boiler-{number} temperature {heat:.2f}".encode(), address)
            transport.sendto(f"boiler-{number} pressure {heat / 40:.3f}".encode(), address)
        await asyncio.sleep(0.25)


def publisher(port: int = PORT):
    """The gateway on a UDP port; 0 takes a free one."""

    async def publish(hub: fastsse.Server) -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: Gateway(hub), local_addr=("127.0.0.1", port)
        )
        try:
            await simulate(transport, transport.get_extra_info("sockname"))
        finally:
            transport.close()

    return publish


OPTIONS = {"topics": [{"match": "devices/*", "keep_last": 1, "history_events": 1000}]}
EXAMPLE = Example(Path(__file__).parent, publisher(), OPTIONS)

if __name__ == "__main__":
    run(EXAMPLE)
