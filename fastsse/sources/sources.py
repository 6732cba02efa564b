"""All sources of a node: begun with it, ended with it. They run beside the log, once a node."""

import asyncio
from collections import Counter
from typing import Final, Protocol

from fastsse.config import Config
from fastsse.config.sources import SourceRule
from fastsse.log import get_logger
from fastsse.redis.connection import RedisAddress
from fastsse.redis.keys import Keys
from fastsse.sources.channels import ChannelSource
from fastsse.sources.deadletters import DeadLetters
from fastsse.sources.intake import Intake, Publish
from fastsse.sources.lease import Lease
from fastsse.sources.payloads import Allows, Maker
from fastsse.sources.streams import StreamSource

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
# A source that failed where nobody thought it could is not given up.
AGAIN_S: Final = 5.0


class _Part(Protocol):
    async def run(self) -> None: ...


class Sources:
    """What `[[sources]]` names, at work. Loop thread only.

    Arguments:
        config: the options.
        publish: appends to the log.
    """

    def __init__(self, config: Config, publish: Publish) -> None:
        self._config = config
        self._publish = publish
        self._counts: Counter[str] = Counter()
        self._intakes: list[Intake] = []
        self._letters: list[DeadLetters] = []
        self._sources = [self._made(rule) for rule in config.sources]
        self._reading: list[asyncio.Task[None]] = []
        self._writing: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """Starts them, when the log can be appended to."""
        self._writing = [asyncio.create_task(_kept_running(part)) for part in self._letters]
        self._reading = [asyncio.create_task(_kept_running(part)) for part in self._sources]

    def counters(self) -> dict[str, int]:
        """What sources counted, and how far behind each is, in ms; nothing without sources."""
        if not self._intakes:
            return {}
        lags = {f"source_lag_ms_{intake.name}": intake.lag_ms for intake in self._intakes}
        return {name: self._counts[name] for name in COUNTS} | lags

    async def close(self) -> None:
        """Ends them, in order: what was read and not confirmed is handed back, and what can't be
        an event is written down. Takes about a second and a half at most."""
        for tasks in (self._reading, self._writing):
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _made(self, rule: SourceRule) -> _Part:
        config = self._config
        address = RedisAddress(rule.url or config.store, config.redis_timeout)
        letters = DeadLetters(address, rule.dead_letter, rule.name, self._counts)
        maker = Maker(rule, config.max_body, _allows(config), config.max_event)
        intake = Intake(rule.name, maker, self._publish, self._counts, letters)
        self._letters.append(letters)
        self._intakes.append(intake)
        if rule.stream is not None:
            return StreamSource(rule, address, intake)
        key = Keys(config.redis_stream).prefix + b"source:" + rule.name.encode()
        lease = Lease(address, key, rule.name) if "://" in config.store else None
        return ChannelSource(rule, address, intake, lease)


def _allows(config: Config) -> Allows | None:
    """The rules of topics, which hold for sources as for every other publisher."""
    if all(rule.event_types is None for rule in config.topics):
        return None
    return lambda topic, name: config.limits(topic).allows_event_type(name)


async def _kept_running(part: _Part) -> None:
    while True:
        try:
            await part.run()
        except Exception:
            log.exception("A source failed; it is started again.")
        await asyncio.sleep(AGAIN_S)
