"""A process that appends until it is killed, and says of each batch when it was acknowledged.

    python -m tests.backbone.appender PATH ACK

Lines on standard output: `s POSITION` for each position that was delivered to streams, `a POSITION`
for each that was acknowledged, `r 0` for each batch that was refused; all before the process does
anything else.
"""

import asyncio
import os
import sys
from collections.abc import Sequence

from fastsse.backbone.sqlite import SqliteBackbone
from fastsse.config import Config
from fastsse.entries import Entry
from fastsse.errors import FastsseError
from fastsse.events import Event

PUBLISHERS = 16


def say(kind: str, positions: Sequence[int]) -> None:
    os.write(1, "".join(f"{kind} {position}\n" for position in positions).encode())


async def main(path: str, ack: str) -> None:
    backbone = SqliteBackbone(path, Config(history_events=1_000_000), ack=ack)  # type: ignore[arg-type]

    def deliver(entries: Sequence[Entry]) -> None:
        say("s", [entry.position for entry in entries])

    def publish(number: int) -> None:
        def done(outcome: Sequence[int] | FastsseError) -> None:
            if isinstance(outcome, FastsseError):
                say("r", [0])
                asyncio.get_running_loop().call_later(0.02, publish, number)
                return
            say("a", outcome)
            asyncio.get_running_loop().call_soon(publish, number)

        events = [Event((f"t{number}", "all"), "x" * 100) for _ in range(1 + number % 3)]
        backbone.append(events, done)

    backbone.tail(backbone.start, deliver, lambda *_: None)
    for number in range(PUBLISHERS):
        publish(number)
    await asyncio.Event().wait()


asyncio.run(main(sys.argv[1], sys.argv[2]))
