"""A counter and a list that the server draws, with Datastar: `python -m examples.datastar.app`."""

import asyncio
import itertools
import time
from html import escape
from pathlib import Path

import fastsse
from examples.site import Example, run

NAMES = ["Ada", "Grace", "<i>Linus</i>"]


def fragment(html: str, **settings: str) -> str:
    """The data of an event that Datastar draws."""
    lines = [f"{name} {value}" for name, value in settings.items()]
    return "\n".join([*lines, f"elements {html}"])


async def publish(hub: fastsse.Server) -> None:
    """Draws a visit every second. What is inserted as HTML is escaped here."""
    kind = "datastar-patch-elements"
    for number, name in enumerate(itertools.cycle(NAMES), 1):
        hub.publish("visits", fragment(f'<b id="count">{number}</b>'), event=kind)
        row = f"<li>{escape(name)} at {time.strftime('%H:%M:%S')}</li>"
        data = fragment(row, selector="#visits", mode="prepend")
        hub.publish("visits", data, event=kind)
        await asyncio.sleep(1)


# Datastar sends a header of its own, and makes functions of its attributes.
OPTIONS = {"cors_headers": ["Datastar-Request"]}
EXAMPLE = Example(Path(__file__).parent, publish, OPTIONS, "'unsafe-eval'")

if __name__ == "__main__":
    run(EXAMPLE)
