"""Programs that do the same in several ways, one after the other in each round.

`client_streams` and `client_publishes` measure so. A program of its own for each way, so that none
has more in its memory than its library and click. The first way of a round is another one each
time.
"""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import click

ROUNDS: Final = 7

#: The cost of each way in a round.
Round = dict[str, float]


async def rounds_of(
    module: str, ways: Sequence[str], url: str, count: int, rounds: int = ROUNDS
) -> list[Round]:
    """Runs `python -m MODULE COUNT --way WAY --url URL` for each way in each round; it prints its
    cost."""
    found = []
    for turn in range(rounds):
        at = turn % len(ways)
        order = (*ways[at:], *ways[:at])
        found.append({way: await _cost(module, way, url, count) for way in order})
    return found


def costs_and_ratios(
    rounds: Sequence[Round], way: str, base: str
) -> tuple[list[float], list[float]]:
    """The costs of a way, and their ratios to `base` of the same round."""
    costs = [costs[way] for costs in rounds]
    return costs, [costs[way] / costs[base] for costs in rounds]


def command(
    ways: Sequence[str],
    events: int,
    measure: Callable[[int], Coroutine[Any, Any, None]],
    one: Callable[[str, str, int], Coroutine[Any, Any, None]],
) -> click.Command:
    """The command of such a program. Its help is the docstring of `measure`.

    Arguments:
        ways: their names.
        events: how many it takes by default.
        measure: all ways, with a server of its own.
        one: what the program of a way does: its name, the server's URL, the number of events.
    """

    @click.command(help=measure.__doc__)
    @click.argument("events", default=events, type=click.IntRange(min=1))
    @click.option("--way", type=click.Choice(ways), help="Measure only this one, in this process.")
    @click.option("--url", help="With --way: of the server.")
    def main(events: int, way: str | None, url: str | None) -> None:
        if (way is None) != (url is None):
            raise click.UsageError("--way and --url belong together.")
        asyncio.run(measure(events) if way is None or url is None else one(way, url, events))

    return main


async def _cost(module: str, way: str, url: str, count: int) -> float:
    command = (sys.executable, "-m", module, str(count), "--way", way, "--url", url)
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    text, _ = await process.communicate()
    return float(text)
