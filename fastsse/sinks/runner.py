"""All sinks of a node, from its start to its end. Where nodes share a log, one of them sends."""

import asyncio
import ipaddress
from collections import Counter
from typing import Final

from fastsse.backbone import Backbone
from fastsse.config import Config
from fastsse.config.webhooks import WebhookRule
from fastsse.control.service import ControlStore
from fastsse.log import get_logger
from fastsse.outbound import AddressGuard, OutboundClient, OutboundOptions, Signer
from fastsse.redis.connection import RedisAddress
from fastsse.redis.keys import Keys
from fastsse.sinks.log_reader import LogReader
from fastsse.sinks.webhooks import WAIT_MAX_S, WebhookSink, kept_place
from fastsse.sources.deadletters import DeadLetters
from fastsse.sources.lease import Lease
from fastsse.sources.letter_stores import FileLetters
from fastsse.tracing import Tracer

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
# The pause before a sink that failed unexpectedly is started again.
AGAIN_S: Final = 5.0
LEASE_LOOK_S: Final = 0.2


class Sinks:
    """Runs the webhooks of `[[webhooks]]`. Loop thread only.

    Arguments:
        config: the options.
        backbone: the store, whose log is sent.
        store: keeps the places.
        tracer: makes spans of requests with traced events; None: none.
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
        networks = [ipaddress.ip_network(text) for text in config.outbound_networks]
        self._guard = AddressGuard(networks)
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """Starts them."""
        self._tasks = [
            asyncio.create_task(_kept_running(self._run, rule)) for rule in self._config.webhooks
        ]

    def counters(self) -> dict[str, int]:
        """The counters of the sinks; empty without sinks."""
        if not self._config.webhooks:
            return {}
        lost = self._counts["sources_letters_lost"]
        return {name: self._counts[name] for name in COUNTS} | {"webhook_letters_lost": lost}

    async def close(self) -> None:
        """Ends them. What was not taken is sent by the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, rule: WebhookRule) -> None:
        lease = self._lease(rule)
        if lease is None:
            await self._send(rule)
            return
        keeping = asyncio.create_task(lease.keep())
        try:
            while True:
                await _until_held(lease, is_held=True)
                sending = asyncio.create_task(self._send(rule))
                losing = asyncio.create_task(_until_held(lease, is_held=False))
                await _first_of(sending, losing)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def _send(self, rule: WebhookRule) -> None:
        assert self._store is not None
        path = (rule.dead_letter or "").partition(":")[2]
        letters = DeadLetters(
            FileLetters(path, rule.name) if path else None, rule.name, self._counts
        )
        signer = Signer([secret.get_secret_value() for secret in rule.secrets])
        options = OutboundOptions(timeout_s=rule.timeout, wait_max_s=WAIT_MAX_S, connections=2)
        reader = LogReader(self._backbone, rule.topics, kept_place(self._store, rule))
        async with OutboundClient(self._guard, signer, options) as client:
            sink = WebhookSink(rule, reader, client, self._store, letters, self._counts)
            sink.tracer = self._tracer
            sink.begin()
            await _first_of(asyncio.create_task(sink.run()), asyncio.create_task(letters.run()))

    def _lease(self, rule: WebhookRule) -> Lease | None:
        config = self._config
        if "://" not in config.store:
            return None
        key = Keys(config.redis_stream).prefix + b"webhook:" + rule.name.encode()
        return Lease(RedisAddress(config.store, config.redis_timeout), key, rule.name)


async def _until_held(lease: Lease, *, is_held: bool) -> None:
    while lease.is_held != is_held:  # noqa: ASYNC110
        await asyncio.sleep(LEASE_LOOK_S)


async def _first_of(*tasks: "asyncio.Task[None]") -> None:
    """Waits for the first that ends, and ends the others."""
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _kept_running(run: object, rule: WebhookRule) -> None:
    assert callable(run)
    while True:
        try:
            await run(rule)
        except Exception:
            log.exception("A webhook failed; it is started again.")
        await asyncio.sleep(AGAIN_S)
