"""All sources of a node, from its start to its end. They run once in a node, apart from the log."""

import asyncio
from collections import Counter
from typing import Final, Protocol

from fastsse.config import Config
from fastsse.config.sources import SourceRule
from fastsse.log import get_logger
from fastsse.redis.connection import RedisAddress
from fastsse.redis.keys import Keys
from fastsse.sources.deadletters import DeadLetters
from fastsse.sources.lease import Lease
from fastsse.sources.payloads import Allows, Maker
from fastsse.sources.redis_channels import ChannelSource
from fastsse.sources.redis_streams import StreamSource
from fastsse.sources.source_publisher import Publish, SourcePublisher

__all__ = ["Sources"]

log = get_logger("sources")
COUNTS: Final = (
    "sources_events",
    "sources_skipped",
    "sources_dropped",
    "sources_refused",
    "sources_reconnects",
    "sources_letters_lost",
)
# The pause before a source that failed unexpectedly is started again.
AGAIN_S: Final = 5.0


class _Task(Protocol):
    async def run(self) -> None: ...


class Sources:
    """Runs the sources of `[[sources]]`. Loop thread only.

    Arguments:
        config: the options.
        publish: appends to the log.
    """

    def __init__(self, config: Config, publish: Publish) -> None:
        self._config = config
        self._publish = publish
        self._counts: Counter[str] = Counter()
        self._intakes: list[SourcePublisher] = []
        self._letters: list[DeadLetters] = []
        self._sources = [self._made(rule) for rule in config.sources]
        self._reading: list[asyncio.Task[None]] = []
        self._writing: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """Starts them, when the log can be appended to."""
        self._writing = [asyncio.create_task(_kept_running(part)) for part in self._letters]
        self._reading = [asyncio.create_task(_kept_running(part)) for part in self._sources]

    def counters(self) -> dict[str, int]:
        """The counters of the sources, and how far behind each is, in ms; empty without sources."""
        if not self._intakes:
            return {}
        lags = {f"source_lag_ms_{publisher.name}": publisher.lag_ms for publisher in self._intakes}
        return {name: self._counts[name] for name in COUNTS} | lags

    async def close(self) -> None:
        """Ends them cleanly: unconfirmed entries are released, and dead letters are written. Takes
        at most about a second and a half."""
        for tasks in (self._reading, self._writing):
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _made(self, rule: SourceRule) -> _Task:
        config = self._config
        address = RedisAddress(rule.url or config.store, config.redis_timeout)
        letters = DeadLetters(address, rule.dead_letter, rule.name, self._counts)
        maker = Maker(rule, config.max_body, _allows(config), config.max_event)
        publisher = SourcePublisher(rule.name, maker, self._publish, self._counts, letters)
        self._letters.append(letters)
        self._intakes.append(publisher)
        if rule.stream is not None:
            return StreamSource(rule, address, publisher)
        key = Keys(config.redis_stream).prefix + b"source:" + rule.name.encode()
        lease = Lease(address, key, rule.name) if "://" in config.store else None
        return ChannelSource(rule, address, publisher, lease)


def _allows(config: Config) -> Allows | None:
    """The topic rules, which apply to sources as to all publishers."""
    if all(rule.event_types is None and rule.types is None for rule in config.topics):
        return None
    return lambda topic, name: config.limits(topic).allows_event_type(name)


async def _kept_running(part: _Task) -> None:
    while True:
        try:
            await part.run()
        except Exception:
            log.exception("A source failed; it is started again.")
        await asyncio.sleep(AGAIN_S)
