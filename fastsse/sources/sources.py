"""All sources of a node: begun with it, ended with it. They run beside the log, once a node."""

import asyncio
from collections import Counter
from typing import Final, Protocol

from fastsse.backbone.redis.keys import Keys
from fastsse.backbone.redis.link import Address
from fastsse.config import Config
from fastsse.config.sources import SourceRule
from fastsse.log import get_logger
from fastsse.sources.channels import ChannelSource
from fastsse.sources.deadletters import DeadLetters
from fastsse.sources.intake import Intake, Publish
from fastsse.sources.lease import Lease
from fastsse.sources.payloads import Maker
from fastsse.sources.streams import StreamSource

__all__ = ["Sources"]

log = get_logger("sources")
COUNTS: Final = (
    "sources_events",
    "sources_skipped",
    "sources_dropped",
    "sources_refused",
    "sources_reconnects",
)


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
        self._counts: Counter[str] = Counter()
        self._intakes: list[Intake] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._publish = publish
        self._parts = [part for rule in config.sources for part in self._made(rule)]

    def begin(self) -> None:
        """Starts them, when the log can be appended to."""
        self._tasks = [_begun(part) for part in self._parts]

    def counters(self) -> dict[str, int]:
        """What sources counted, and how far behind each is, in ms; nothing without sources."""
        if not self._intakes:
            return {}
        lags = {f"source_lag_ms_{intake.name}": intake.lag_ms for intake in self._intakes}
        return {name: self._counts[name] for name in COUNTS} | lags

    async def close(self) -> None:
        """Ends them. What was read and not confirmed is read again by whoever comes next."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _made(self, rule: SourceRule) -> "tuple[_Part, _Part]":
        config = self._config
        url = rule.url or config.store
        address = Address(url, config.redis_timeout)
        maker = Maker(rule, config.max_body)
        intake = Intake(rule.name, self._publish, self._counts)
        letters = DeadLetters(address, rule.dead_letter, rule.name)
        self._intakes.append(intake)
        source: _Part
        if rule.stream is None:
            key = Keys(config.redis_stream).prefix + b"source:" + rule.name.encode()
            lease = Lease(address, key) if "://" in config.store else None
            source = ChannelSource(rule, address, maker, intake, lease, letters)
        else:
            source = StreamSource(rule, address, maker, intake, letters)
        return source, letters


def _begun(part: _Part) -> "asyncio.Task[None]":
    async def run() -> None:
        try:
            await part.run()
        except Exception:
            log.exception("A source failed and stopped.")

    return asyncio.create_task(run())
