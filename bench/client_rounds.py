"""Programs that do the same in several ways, one after the other in each round.

`client_streams` and `client_publishes` measure so. A program of its own for each way, so that none
has more in its memory than its library. The first way of a round is another one each time.
"""

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

ROUNDS: Final = 7

#: The cost of each way in a round.
Round = dict[str, float]


async def rounds_of(module: str, ways: Sequence[str], *words: str) -> list[Round]:
    """Runs `python -m MODULE WAY WORDS…` for each way in each round; it prints its cost."""
    rounds = []
    for turn in range(ROUNDS):
        at = turn % len(ways)
        order = (*ways[at:], *ways[:at])
        rounds.append({way: await _cost(module, way, *words) for way in order})
    return rounds


def costs_and_ratios(
    rounds: Sequence[Round], way: str, base: str
) -> tuple[list[float], list[float]]:
    """The costs of a way, and their ratios to `base` of the same round."""
    costs = [costs[way] for costs in rounds]
    return costs, [costs[way] / costs[base] for costs in rounds]


async def _cost(module: str, *words: str) -> float:
    command = (sys.executable, "-m", module, *words)
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    text, _ = await process.communicate()
    return float(text)
