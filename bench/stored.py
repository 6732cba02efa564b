"""`python -m bench.stored PATH`: how long a resume takes from a file of very many events.

Makes the file when it is not there (about 2 GB for ten million events), then resumes from ids at
random places of it: positions and publishers' own ids, of one topic and of all. Each figure is the
time from the question to the answer, through the backbone as the hub asks it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Any

import click
import uvloop

from fastsse.backbone.sqlite import SqliteBackbone
from fastsse.backbone.sqlite.file import HistoryFile
from fastsse.backbone.sqlite.inserts import store_entries
from fastsse.backbone.sqlite.places import place_of
from fastsse.config import Config
from fastsse.entries import encode_entries
from fastsse.errors import FastsseError
from fastsse.events import Event
from fastsse.positions import format_position, position_at
from fastsse.subscriptions import Cursor

TOPICS = 1_000
# One event a millisecond, and every tenth has an id of its publisher's.
OWN_ID_EVERY = 10
START_MS = 1_700_000_000_000
STEP = 10_000
PAGE_BYTES = 256 * 1024
KEEP_ALL = Config(
    history_events=100_000_000,
    history_age="3650d",
    history_bytes="16TiB",
    history_total="1MiB",
    max_lag="1MiB",
)


def position_of(index: int) -> int:
    return position_at(START_MS + index) + 1


def build(path: Path, events: int, size_bytes: int) -> None:
    """A file as a server would have left it."""
    data = "x" * size_bytes
    file = HistoryFile(str(path), lambda: START_MS)
    for start in range(0, events, STEP):
        indexes = range(start, min(start + STEP, events))
        made = [
            Event(f"topic/{index % TOPICS}", data, id=own_id(index) if has_own_id(index) else None)
            for index in indexes
        ]
        with file.transaction(synced=False):
            store_entries(file, encode_entries([position_of(index) for index in indexes], made))
            file.update(leased_through=place_of(position_of(indexes[-1])))
        if start % (STEP * 10) == 0:
            file.flush()
            click.echo(f"\r{start:,} events", nl=False, err=True)
    file.flush()
    file.close()
    click.echo("", err=True)


def has_own_id(index: int) -> bool:
    return index % OWN_ID_EVERY == 0


def own_id(index: int) -> str:
    return f"order-{index * 7919 % 1_000_000_007}"


async def answered(ask: Callable[[Callable[[Any], None]], None]) -> tuple[float, Any]:
    """The milliseconds to an answer, and the answer."""
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    began_s = time.perf_counter()
    ask(answer.set_result)
    outcome = await answer
    assert not isinstance(outcome, FastsseError), outcome
    return (time.perf_counter() - began_s) * 1000, outcome


async def measure(path: Path, events: int, resumes: int) -> dict[str, list[float]]:
    backbone = SqliteBackbone(str(path), KEEP_ALL)
    backbone.tail(backbone.start, lambda entries: None, lambda why, place: None)
    took: dict[str, list[float]] = {}
    try:
        for _ in range(resumes):
            index = random.randrange(events // OWN_ID_EVERY) * OWN_ID_EVERY
            place, topic = position_of(index), (f"topic/{index % TOPICS}",)
            await _resume(backbone, took, topic, index, place)
    finally:
        await backbone.close()
    return took


async def _resume(
    backbone: SqliteBackbone,
    took: dict[str, list[float]],
    topic: tuple[str, ...],
    index: int,
    place: int,
) -> None:
    def note(name: str, ms: float) -> None:
        took.setdefault(name, []).append(ms)

    ms, found = await answered(partial(backbone.seek, topic, Cursor("after", own_id(index))))
    assert found == place, (found, format_position(place))
    note("find a publisher's own id", ms)
    for name, limit_bytes in (("first event", 1), ("page of 256 KiB", PAGE_BYTES)):
        ms, stretch = await answered(partial(backbone.read, topic, place, limit_bytes))
        assert stretch.is_last or stretch.entries[0].position == position_of(index + TOPICS)
        note(f"{name} of a topic after an id", ms)
        ms, stretch = await answered(partial(backbone.read, ("*",), place, limit_bytes))
        assert stretch.is_last or stretch.entries[0].position == position_of(index + 1)
        note(f"{name} of all after an id", ms)


@click.command()
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--events", default=10_000_000, show_default=True, type=click.IntRange(min=1_000))
@click.option("--size", default=128, show_default=True, help="Bytes of data in each event.")
@click.option("--resumes", default=1_000, show_default=True, type=click.IntRange(min=10))
def main(path: Path, events: int, size: int, resumes: int) -> None:
    """Resumes from random places of a file of very many events."""
    if not path.exists():
        began_s = time.perf_counter()
        build(path, events, size)
        click.echo(f"{events:,} events written in {time.perf_counter() - began_s:.0f} s")
    click.echo(f"{path.stat().st_size / events:.0f} bytes an event in the file")
    took = uvloop.run(measure(path, events, resumes))
    for name, times in took.items():
        cuts = quantiles(times, n=100)
        median, high, most = cuts[49], cuts[98], max(times)
        click.echo(f"{name}: median {median:.2f} ms, p99 {high:.2f} ms, most {most:.2f} ms")


if __name__ == "__main__":
    main()
