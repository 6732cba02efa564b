"""What the next messages of a source would become."""

from collections import Counter
from collections.abc import Sequence

from fastsse.config import Config
from fastsse.config.sources import SourceRule
from fastsse.events import Event
from fastsse.sources.deadletters import DeadLetters
from fastsse.sources.runner import make_maker, make_source
from fastsse.sources.source_publisher import SourcePublisher

__all__ = ["preview"]

Outcome = Event | ValueError | None
"""An event, why it is none, or None: the filter leaves it out."""


async def preview(
    config: Config, rule: SourceRule, count: int, wait_s: float
) -> Sequence[tuple[str, Outcome]]:
    """The next messages, at most `count`, that come within a time: their origin, and what each
    would become. Nothing is consumed. Raises SourceAway, MissingExtra."""
    maker = make_maker(rule, config)
    counts: Counter[str] = Counter()
    letters = DeadLetters(None, rule.name, counts)
    publisher = SourcePublisher(rule.name, maker, lambda events, done: None, counts, letters)
    source = make_source(rule, config, publisher)
    outcomes: list[tuple[str, Outcome]] = []
    for message in await source.preview(count, wait_s):
        try:
            outcomes.append((message.origin, maker.make(message)))
        except ValueError as error:
            outcomes.append((message.origin, error))
    return outcomes
