"""Faults of a Redis as faults of a source."""

from collections.abc import Iterator
from contextlib import contextmanager

from fastsse.redis.errors import AnswerLost, RedisRefusal
from fastsse.sources.source import SourceAway

__all__ = ["as_source_faults"]


@contextmanager
def as_source_faults() -> Iterator[None]:
    """Raises SourceAway for a Redis that is away or refuses."""
    try:
        yield
    except (AnswerLost, RedisRefusal) as fault:
        raise SourceAway(str(fault)) from fault
