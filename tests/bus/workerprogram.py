"""A worker process for tests: `python -m tests.bus.workerprogram ADDRESS NUMBER`.

Publishes for ever, and says on its standard output what was acknowledged.
"""

import asyncio
import os
import sys

from fastsse.bus import connect
from fastsse.config import Config
from fastsse.events import Event
from tests.bus.onebus import End


async def publish_for_ever(address: str, number: int) -> None:
    end = End(*await connect(address, number, os.urandom(8)), Config(port=0))
    print("ready", flush=True)
    index = 0
    while True:
        (position,) = await end.publish(Event("w", f"{number}-{index}"))
        print(index, position, flush=True)
        index += 1


def main() -> None:
    asyncio.run(publish_for_ever("\0" + sys.argv[1], int(sys.argv[2])))


if __name__ == "__main__":
    main()
