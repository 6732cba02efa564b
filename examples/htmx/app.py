"""News as HTML for htmx, without a line of JavaScript: `python -m examples.htmx.app`."""

import asyncio
import itertools
from html import escape
from pathlib import Path

import fastsse
from examples.site import Example, run

TEXTS = ["a new release", "<b>markup</b> that stays text", "a late train"]


async def publish(hub: fastsse.Server) -> None:
    """Publishes an item every second. What is inserted as HTML is escaped here."""
    for number, text in enumerate(itertools.cycle(TEXTS), 1):
        hub.publish("news", f"<li>{number}: {escape(text)}</li>", event="item")
        hub.publish("news", str(number), event="count")
        await asyncio.sleep(1)


# htmx sets a style of its own for its indicators; the attribute in the page turns that off.
EXAMPLE = Example(Path(__file__).parent, publish)

if __name__ == "__main__":
    run(EXAMPLE)
