"""How the log that many nodes share lies in Redis."""

import re
from typing import Annotated

from pydantic import AfterValidator

from fastsse.config.groups import OptionGroup, duration, option
from fastsse.config.kinds import Count, Kind, Seconds

__all__ = ["RedisOptions"]

_STREAM = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)
STREAM = Kind("NAME", "1 to 64 letters, digits or ._:-")


def check_stream(name: str) -> str:
    """A name that can stand in braces in other keys."""
    if not _STREAM.fullmatch(name):
        raise ValueError("must be a name")
    return name


class RedisOptions(OptionGroup):
    """Nodes that share a log in Redis (`store`)."""

    title = "Redis"

    redis_stream: Annotated[str, AfterValidator(check_stream), STREAM] = option(
        "fastsse", "Name of the log; nodes with the same one are one service."
    )
    redis_events: Count = option(
        100_000,
        "Events of all topics that nodes can catch up on, and that templates and * can resume "
        "from; exact topics keep what history_events and history_age say.",
        ge=100,
        le=1_000_000_000,
    )
    redis_wait: Count = option(
        0, "Replicas that must have an event before it is acknowledged.", ge=0, le=100
    )
    redis_timeout: Seconds = duration(
        "5s",
        "Time for an answer of Redis; a publish without one is refused then.",
        least="100ms",
        most="1m",
    )
    redis_node_timeout: Seconds = duration(
        "8s",
        "A node that Redis has heard nothing of for so long is taken for dead: its subscribers "
        "leave the lists, and what its clients hold of their limits is given back.",
        least="500ms",
        most="10m",
    )
    redis_start: Seconds = duration(
        "30s", "How long a start waits for a Redis that is away.", least="0s", most="1h"
    )
