"""The tail of a log, filtered on the server: `python -m examples.logtail.app`."""

import asyncio
import itertools
import random
from pathlib import Path

import fastsse
from examples.site import Example, run

LEVELS = ["debug", "info", "warning", "error"]
TEXTS = ["request served", "cache missed", "<b>user</b> logged in", "disk is slow", "job finished"]


async def publish(hub: fastsse.Server) -> None:
    """Writes twenty lines a second."""
    for number in itertools.count():
        level = random.choices(range(len(LEVELS)), [60, 30, 8, 2])[0]
        data = {"level": level, "name": LEVELS[level], "text": f"{random.choice(TEXTS)} #{number}"}
        hub.publish(f"logs/{random.choice(['web', 'worker'])}", data)
        await asyncio.sleep(0.05)


EXAMPLE = Example(Path(__file__).parent, publish)

if __name__ == "__main__":
    run(EXAMPLE)
