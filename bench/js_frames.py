"""Frames of a page that reads 10,000 events a second: `python -m bench.js_frames [SECONDS]`.

Chromium draws a page that reads one topic with the JavaScript client. Its handler stores the value,
and each frame shows it. What is counted is the time between two frames, first without events.
"""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Final

import click

from fastsse.config import Config
from fastsse.server import Server
from tests.browser.chromium import chromium

RATE: Final = 10_000
TURN_S: Final = 0.01
LATE_MS: Final = 50
_PAGE: Final = """(async () => {
  const { connect } = await import("/client.js");
  window.got = 0; window.frames = []; window.last = {};
  const shown = document.body.appendChild(document.createElement("output"));
  const onEvent = ({ data }) => { got++; last[data.symbol] = data.price; };
  connect("/").subscribe("ticks", { onEvent });
  let before;
  const draw = (now) => {
    if (before) frames.push(now - before);
    before = now;
    shown.textContent = `${got} ${last.S0}`;
    requestAnimationFrame(draw);
  };
  requestAnimationFrame(draw);
})()"""


async def measure(seconds: float) -> None:
    """Prints two lines of figures."""
    with tempfile.TemporaryDirectory() as profile:
        async with (
            chromium(Path(profile)) as browser,
            Server(Config(port=0, drain="0s", history_events=1000)) as server,
        ):
            page = await browser.open(f"{server.addresses[0]}/healthz")
            await page.run(_PAGE)
            while not server.stream_count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await asyncio.sleep(1)
            await page.run("frames.length = 0")
            await asyncio.sleep(seconds)
            quiet = sorted(await page.run("frames"))
            await page.run("frames.length = 0")
            sent, begun = 0, time.monotonic()
            while (passed := time.monotonic() - begun) < seconds:
                for n in range(sent, int(passed * RATE)):
                    server.publish("ticks", {"symbol": f"S{n % 300}", "price": n / 7, "volume": n})
                sent = max(sent, int(passed * RATE))
                await asyncio.sleep(TURN_S)
            frames = sorted(await page.run("frames"))
            await page.settled("got", sent)
    print(f"without events: {_figures(quiet, seconds)}")
    print(f"{sent / seconds:,.0f} events/s: {_figures(frames, seconds)}")


def _figures(frames: list[float], seconds: float) -> str:
    late = sum(frame > LATE_MS for frame in frames)
    return (
        f"{len(frames) / seconds:.0f} frames/s, median {frames[len(frames) // 2]:.1f} ms, "
        f"{late} over {LATE_MS} ms, longest {frames[-1]:.1f} ms"
    )


@click.command()
@click.argument("seconds", default=10.0, type=click.FloatRange(min=0, min_open=True))
def main(seconds: float) -> None:
    """Counts the frames of a page in Chromium for SECONDS, without events and with them."""
    asyncio.run(measure(seconds))


if __name__ == "__main__":
    main()
