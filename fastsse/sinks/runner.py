"""All sinks of a node, from its start to its end. Where nodes share a log, one of them sends."""

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fastsse.backbone import Backbone
from fastsse.config import Config
from fastsse.config.mirrors import MirrorRule
from fastsse.config.webhooks import WebhookRule
from fastsse.control.gather import LETTERS, OwnFacts
from fastsse.control.service import ControlStore
from fastsse.log import get_logger
from fastsse.outbound import AddressGuard, OutboundClient, OutboundOptions, Signer
from fastsse.positions import now_ms
from fastsse.sinks import mirrors
from fastsse.sinks.envelopes import EntryFilter
from fastsse.sinks.log_reader import LogReader
from fastsse.sinks.mirrors import Mirror, Target
from fastsse.sinks.replaying import WebhookReplays
from fastsse.sinks.webhooks import WAIT_MAX_S, WebhookSink, kept_place
from fastsse.sources.deadletters import DeadLetters
from fastsse.sources.file_letters import FileLetters
from fastsse.tracing import Tracer

if TYPE_CHECKING:
    from fastsse.sources.lease import Lease

__all__ = ["Sinks"]

log = get_logger("webhooks")
COUNTS: Final = (
    "webhook_events",
    "webhook_requests",
    "webhook_failures",
    "webhook_given_up",
    "webhook_gaps",
    "webhook_letters_lost",
)
MIRROR_COUNTS: Final = (
    "mirrors_events",
    "mirrors_failures",
    "mirrors_refused",
    "mirrors_gaps",
    "mirrors_letters_lost",
)
# The pause before a sink that failed unexpectedly is started again.
AGAIN_S: Final = 5.0
LEASE_LOOK_S: Final = 0.2
Work = Callable[[], Awaitable[None]]


class Sinks:
    """Runs the webhooks of `[[webhooks]]` and the mirrors of `[[mirrors]]`. Loop thread only.

    Arguments:
        config: the options.
        backbone: the store, whose log is sent.
        store: keeps the places.
        tracer: makes spans of requests with traced events; None: none.

    Raises MissingExtra when the library of a mirror is not installed.
    """

    def __init__(
        self,
        config: Config,
        backbone: Backbone,
        store: ControlStore | None,
        tracer: Tracer | None = None,
    ) -> None:
        self._config = config
        self._tracer = tracer
        self._backbone = backbone
        self._store = store
        self._counts: Counter[str] = Counter()
        self._mirror_counts: Counter[str] = Counter()
        networks = [ipaddress.ip_network(text) for text in config.outbound_networks]
        self._guard = AddressGuard(networks)
        self._replays = WebhookReplays(config.webhooks, self._guard)
        self._targets = {rule.name: _target(rule, config) for rule in config.mirrors}
        self._mirrors: dict[str, Mirror] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """Starts them."""
        works = [
            *(("webhook", rule.name, partial(self._send, rule)) for rule in self._config.webhooks),
            *(("mirror", rule.name, partial(self._copy, rule)) for rule in self._config.mirrors),
        ]
        self._tasks = [
            asyncio.create_task(_kept_running(partial(self._run, kind, name, work), name))
            for kind, name, work in works
        ]

    def counters(self) -> dict[str, int]:
        """The counters of the sinks, and the state of each mirror; empty without sinks."""
        found: dict[str, int] = {}
        if self._config.webhooks:
            found |= {name: self._counts[name] for name in COUNTS}
            found["webhook_letters_lost"] = self._counts["sources_letters_lost"]
        if self._config.mirrors:
            found |= {name: self._mirror_counts[name] for name in MIRROR_COUNTS}
            found["mirrors_letters_lost"] = self._mirror_counts["sources_letters_lost"]
        for state in self.states():
            found[f"mirror_up_{state['name']}"] = int(state["trouble"] is None)
            found[f"mirror_lag_ms_{state['name']}"] = state["lag_ms"]
        return found

    def states(self) -> list[dict[str, Any]]:
        """Each mirror of this node: its name, system, trouble, and lag in ms."""
        return [
            {
                "name": rule.name,
                "system": rule.system,
                "trouble": self._mirrors[rule.name].trouble,
                "lag_ms": self._mirrors[rule.name].lag_ms(now_ms()),
            }
            for rule in self._config.mirrors
            if rule.name in self._mirrors
        ]

    def facts(self, of_sources: OwnFacts) -> OwnFacts:
        """What operators ask of sources and sinks."""
        letters = of_sources[LETTERS]

        def asked(question: Mapping[str, Any]) -> Any:
            if self._replays.knows(str(question["source"])):
                return self._replays.letters(question)
            return letters(question)

        return {**of_sources, LETTERS: asked}

    async def close(self) -> None:
        """Stops the webhooks. Events that were not accepted are sent after the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._replays.close()

    async def _run(self, kind: str, name: str, work: Work) -> None:
        lease = self._lease(kind, name)
        if lease is None:
            await work()
            return
        keeping = asyncio.create_task(lease.keep())
        try:
            while True:
                await _until_held(lease, is_held=True)
                sending = asyncio.ensure_future(work())
                losing = asyncio.create_task(_until_held(lease, is_held=False))
                await _first_of(sending, losing)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def _send(self, rule: WebhookRule) -> None:
        assert self._store is not None
        letters = _letters(rule.dead_letter, rule.name, self._counts)
        signer = Signer([secret.get_secret_value() for secret in rule.secrets])
        options = OutboundOptions(timeout_s=rule.timeout, wait_max_s=WAIT_MAX_S, connections=2)
        reader = LogReader(self._backbone, rule.topics, kept_place(self._store, rule))
        async with OutboundClient(self._guard, signer, options) as client:
            sink = WebhookSink(rule, reader, client, self._store, letters, self._counts)
            sink.tracer = self._tracer
            sink.begin()
            await _first_of(asyncio.create_task(sink.run()), asyncio.create_task(letters.run()))

    async def _copy(self, rule: MirrorRule) -> None:
        assert self._store is not None
        letters = _letters(rule.dead_letter, rule.name, self._mirror_counts)
        place = mirrors.kept_place(self._store, rule.name)
        mirror = Mirror(
            EntryFilter(rule.filter, private=rule.private),
            LogReader(self._backbone, rule.topics, place),
            self._targets[rule.name],
            mirrors.PlaceStore(self._store, rule.name),
            letters,
            self._mirror_counts,
        )
        self._mirrors[rule.name] = mirror
        try:
            await _first_of(asyncio.create_task(mirror.run()), asyncio.create_task(letters.run()))
        finally:
            del self._mirrors[rule.name]

    def _lease(self, kind: str, name: str) -> "Lease | None":
        config = self._config
        if "://" not in config.store:
            return None
        from fastsse.redis.connection import RedisAddress
        from fastsse.redis.keys import Keys
        from fastsse.sources.lease import Lease

        key = Keys(config.redis_stream).prefix + f"{kind}:{name}".encode()
        return Lease(RedisAddress(config.store, config.redis_timeout), key, name)


def _letters(file: str | None, name: str, counts: "Counter[str]") -> DeadLetters:
    path = (file or "").partition(":")[2]
    return DeadLetters(FileLetters(path, name) if path else None, name, counts)


def _target(rule: MirrorRule, config: Config) -> Target:
    """Where a mirror writes. Raises MissingExtra."""
    if rule.system == "kafka":
        from fastsse.sinks.mirror_kafka import KafkaTarget

        return KafkaTarget(rule)
    if rule.system == "nats":
        from fastsse.sinks.mirror_nats import NatsTarget

        return NatsTarget(rule)
    from fastsse.redis.connection import RedisAddress
    from fastsse.sinks.mirror_redis import RedisTarget

    return RedisTarget(rule, RedisAddress(rule.url or config.store, config.redis_timeout))


async def _until_held(lease: "Lease", *, is_held: bool) -> None:
    while lease.is_held != is_held:  # noqa: ASYNC110
        await asyncio.sleep(LEASE_LOOK_S)


async def _first_of(*tasks: "asyncio.Future[None]") -> None:
    """Waits for the first that ends, and ends the others."""
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _kept_running(work: Work, name: str) -> None:
    while True:
        try:
            await work()
        except Exception:
            log.exception("A webhook or a mirror failed; it is started again.", sink=name)
        await asyncio.sleep(AGAIN_S)
