"""All sources of a node, from its start to its end. They run once in a node, apart from the log.

What a kind of source needs is imported when there is one: a client library takes time and memory.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from fastsse.config import Config
from fastsse.config.sources import SourceRule
from fastsse.control.gather import LETTERS, SOURCES, OwnFacts
from fastsse.log import get_logger
from fastsse.sources.deadletters import DeadLetters, LetterStore
from fastsse.sources.driver import Driver
from fastsse.sources.file_letters import FileLetters
from fastsse.sources.files import FileSource
from fastsse.sources.payloads import Allows, Maker
from fastsse.sources.replaying import Replay, shown
from fastsse.sources.source import Source, SourceAway
from fastsse.sources.source_publisher import Publish, SourcePublisher
from fastsse.tracing import Tracer

if TYPE_CHECKING:
    from fastsse.redis.connection import RedisAddress

__all__ = ["Sources", "letter_store", "make_maker", "make_source"]

log = get_logger("sources")
COUNTS: Final = (
    "sources_events",
    "sources_repeats",
    "sources_filtered",
    "sources_skipped",
    "sources_dropped",
    "sources_refused",
    "sources_reconnects",
    "sources_missed",
    "sources_letters_lost",
)
# The pause before a source that failed unexpectedly is started again.
AGAIN_S: Final = 5.0
NO_LETTERS: Final = "there is no source of this name with dead letters here"


class _Task(Protocol):
    async def run(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Running:
    """A source and its parts."""

    rule: SourceRule
    driver: Driver
    publisher: SourcePublisher
    letters: DeadLetters


class Sources:
    """Runs the sources of `[[sources]]`. Loop thread only.

    Arguments:
        config: the options.
        publish: appends to the log.
        tracer: makes spans of messages that name a trace; None: none.

    Raises MissingExtra when the library of a source is not installed.
    """

    def __init__(self, config: Config, publish: Publish, tracer: Tracer | None = None) -> None:
        self._config = config
        self._types = _Types(config)
        self._tracer = tracer
        self._publish = publish
        self._counts: Counter[str] = Counter()
        rules = [rule for rule in config.sources if rule.system != "webhook"]
        self._running = {rule.name: self._made(rule) for rule in rules}
        self._replays: dict[str, tuple[Replay, asyncio.Task[None]]] = {}
        self._reading: list[asyncio.Task[None]] = []
        self._writing: list[asyncio.Task[None]] = []

    def apply_rules(self, config: Config) -> None:
        """Allows the event types that the `[[topics]]` of these options allow."""
        self._types.apply(config)

    def begin(self) -> None:
        """Starts them, when the log can be appended to."""
        parts = self._running.values()
        self._writing = [asyncio.create_task(_kept_running(part.letters)) for part in parts]
        self._reading = [asyncio.create_task(_kept_running(part.driver)) for part in parts]

    def counters(self) -> dict[str, int]:
        """The counters of the sources, and the state of each; empty without sources."""
        if not self._running:
            return {}
        found = {name: self._counts[name] for name in COUNTS}
        for name, part in self._running.items():
            found[f"source_lag_ms_{name}"] = part.publisher.lag_ms
            found[f"source_up_{name}"] = int(part.driver.trouble is None)
            if part.driver.backlog is not None:
                found[f"source_backlog_{name}"] = part.driver.backlog
            if part.rule.dead_letter is not None:
                found[f"source_letters_up_{name}"] = int(part.letters.trouble is None)
                found[f"source_letters_waiting_{name}"] = part.letters.waiting
        return found

    def states(self) -> list[dict[str, Any]]:
        """Each source: its name, system, state (`ready`, `paused` or `away`), trouble, lag in ms,
        backlog in messages (None: unknown), why dead letters can't be written, and how many wait
        for that."""
        return [
            {
                "name": name,
                "system": part.rule.system,
                "state": _state(part.driver),
                "trouble": part.driver.trouble,
                "lag_ms": part.publisher.lag_ms,
                "backlog": part.driver.backlog,
                "letters_trouble": part.letters.trouble,
                "letters_waiting": part.letters.waiting,
            }
            for name, part in self._running.items()
        ]

    def facts(self) -> OwnFacts:
        """What operators ask."""
        return {SOURCES: self._asked, LETTERS: self.letters}

    def _asked(self, question: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The states; with `paused`, the source `source` is paused or resumed before."""
        name, paused = str(question.get("source")), question.get("paused")
        if paused is not None:
            (self.pause if paused else self.resume)(name)
        return self.states()

    def pause(self, name: str) -> bool:
        """Stops reading a source after its present batch. False: there is none of this name."""
        part = self._running.get(name)
        if part is not None and not part.driver.is_paused:
            part.driver.pause()
            log.info("A source was paused.", source=name)
        return part is not None

    def resume(self, name: str) -> bool:
        """Reads a paused source again. False: there is none of this name."""
        part = self._running.get(name)
        if part is not None and part.driver.is_paused:
            part.driver.resume()
            log.info("A source was resumed.", source=name)
        return part is not None

    async def letters(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """The oldest dead letters of the source `source`, at most `count`, and how its last replay
        went; `trouble` if they can't be read. With `replays` a replay of at most `count` begins."""
        part = self._running.get(str(question["source"]))
        store = None if part is None else letter_store(part.rule, self._config)
        if part is None or store is None:
            return {"trouble": NO_LETTERS}
        name, count = part.rule.name, int(question["count"])
        replay = self._replays.get(name)
        if question.get("replays") and (replay is None or replay[1].done()):
            made = Replay(name, store, make_maker(part.rule, self._config), self._publish, count)
            replay = self._replays[name] = (made, asyncio.create_task(made.run()))
            return {"letters": [], "replay": made.state, "trouble": None}
        trouble, found = None, list[dict[str, Any]]()
        try:
            await store.open()
            found = shown(await store.read(count))
        except SourceAway as fault:
            trouble = str(fault)
        finally:
            await store.close()
        state = None if replay is None else replay[0].state
        return {"letters": found, "replay": state, "trouble": trouble}

    async def close(self) -> None:
        """Ends them cleanly: unconfirmed entries are released, and dead letters are written. Takes
        at most about two and a half seconds."""
        for _, task in self._replays.values():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for tasks in (self._reading, self._writing):
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _made(self, rule: SourceRule) -> _Running:
        config = self._config
        letters = DeadLetters(letter_store(rule, config), rule.name, self._counts)
        publisher = SourcePublisher(
            rule.name,
            make_maker(rule, config, self._types.allow),
            self._publish,
            self._counts,
            letters,
        )
        if self._tracer is not None:
            publisher.trace = partial(self._tracer.receive, rule.name, rule.system)
        source = make_source(rule, config, publisher)
        return _Running(rule, Driver(source, publisher), publisher, letters)


def make_maker(rule: SourceRule, config: Config, allows: Allows | None = None) -> Maker:
    """What makes the events of a source. `allows`: which event types a topic may have; None: as the
    options say."""
    return Maker(rule, config.max_body, allows or _Types(config).allow, config.max_event)


def make_source(rule: SourceRule, config: Config, publisher: SourcePublisher) -> Source:
    """What reads a source. Raises MissingExtra."""
    if rule.system == "files":
        return FileSource(rule, publisher.letters_wait)
    if rule.system == "kafka":
        from fastsse.sources.kafka import KafkaSource

        return KafkaSource(rule, publisher.letters_wait)
    if rule.system == "nats":
        from fastsse.sources.nats import JetStreamSource, NatsSource

        return JetStreamSource(rule) if rule.stream else NatsSource(rule, publisher)
    if rule.system == "postgres":
        from fastsse.sources.postgres import OutboxSource, PostgresChannels

        return OutboxSource(rule) if rule.table else PostgresChannels(rule)
    if rule.system == "mqtt":
        from fastsse.sources.mqtt import MqttSource

        return MqttSource(rule, publisher)
    return _redis_source(rule, config, publisher)


def _redis_source(rule: SourceRule, config: Config, publisher: SourcePublisher) -> Source:
    from fastsse.redis.keys import Keys
    from fastsse.sources.lease import Lease
    from fastsse.sources.redis_channels import ChannelSource
    from fastsse.sources.redis_streams import StreamSource

    address = _redis_address(rule, config)
    if rule.stream is not None:
        return StreamSource(rule, address)
    key = Keys(config.redis_stream).prefix + b"source:" + rule.name.encode()
    lease = Lease(address, key, rule.name) if "://" in config.store else None
    return ChannelSource(rule, address, publisher, lease)


def letter_store(rule: SourceRule, config: Config) -> LetterStore | None:
    """Where the dead letters of a source go; None: nowhere. Raises MissingExtra."""
    if rule.dead_letter is None:
        return None
    if rule.letter_file is not None:
        return FileLetters(rule.letter_file, rule.name)
    if rule.system == "kafka":
        from fastsse.sources.kafka_letters import KafkaLetters

        return KafkaLetters(rule)
    from fastsse.sources.redis_letters import RedisLetters

    return RedisLetters(_redis_address(rule, config), rule.dead_letter, rule.name)


def _redis_address(rule: SourceRule, config: Config) -> "RedisAddress":
    from fastsse.redis.connection import RedisAddress

    return RedisAddress(rule.url or config.store, config.redis_timeout)


def _state(driver: Driver) -> str:
    if driver.is_paused:
        return "paused"
    return "ready" if driver.trouble is None else "away"


class _Types:
    """The event types that topic rules allow, which apply to sources as to all publishers."""

    def __init__(self, config: Config) -> None:
        self.apply(config)

    def apply(self, config: Config) -> None:
        """Allows what these options allow from now on."""
        self._config = config
        self._restrict = any(
            rule.event_types is not None or rule.types is not None for rule in config.topics
        )

    def allow(self, topic: str, name: str | None) -> bool:
        """Whether a topic may have events of a type. O(rules), O(1) without such rules."""
        return not self._restrict or self._config.limits(topic).allows_event_type(name)


async def _kept_running(part: _Task) -> None:
    while True:
        try:
            await part.run()
        except Exception:
            log.exception("A source failed; it is started again.")
        await asyncio.sleep(AGAIN_S)
