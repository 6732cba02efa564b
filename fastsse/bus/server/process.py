"""The hub process: one loop, the backbone, the control services, and a session for each worker."""

import asyncio
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, cast

import uvloop

from fastsse.bus.server.broker import Broker, FrameLimits
from fastsse.bus.server.memory import HubMemory, KeyedBackbone
from fastsse.bus.server.recovery import Recovery
from fastsse.bus.server.session import Session
from fastsse.bus.server.topic_rules import TopicRules
from fastsse.config import Config
from fastsse.config.store import MEMORY
from fastsse.control.gather import OwnFacts
from fastsse.control.schedule import Append
from fastsse.control.service import ControlStore, MakeService
from fastsse.hooks import StreamHooks
from fastsse.log import get_logger
from fastsse.positions import now_ms
from fastsse.rules import Alerts, EventRules
from fastsse.rules.intercepting import intercepting, make_interceptors
from fastsse.sinks import Sinks
from fastsse.sources import Sources
from fastsse.stores import open_stores
from fastsse.tracing import Tracer, tracer_of
from fastsse.wakes import StreamWakes

__all__ = ["HubProcess", "run_hub"]

log = get_logger("bus")
MakersFor = Callable[
    [Callable[[], Mapping[str, int]], OwnFacts, Append, StreamWakes, StreamHooks],
    Mapping[str, MakeService],
]


def no_services(
    counters: Callable[[], Mapping[str, int]],
    facts: OwnFacts,
    append: Append,
    wakes: StreamWakes,
    hooks: StreamHooks,
) -> Mapping[str, MakeService]:
    """For a hub that workers only publish to."""
    return {}


def run_hub(
    config: Config,
    listening: socket.socket,
    ready: Callable[["HubProcess"], None],
    *,
    workers: int | None = 0,
    restarted: bool = False,
    makers: MakersFor = no_services,
) -> int:
    """Runs the hub process until SIGTERM, and returns its exit status.

    Arguments:
        config: of which it uses the store, the history's limits and the largest body.
        listening: a Unix stream socket that listens; its owner keeps it open too.
        ready: called once, in the loop, with the process, when workers are served.
        workers: how many there are; None: not known.
        restarted: whether they had a hub before.
        makers: makes the control services' makers, given what the backbone counts, and what this
            process answers operators.

    Raises FastsseError when the store can't be opened. Main thread only.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(config, listening, ready, workers, restarted, makers))


async def _serve(
    config: Config,
    listening: socket.socket,
    ready: Callable[["HubProcess"], None],
    workers: int | None,
    restarted: bool,
    makers: MakersFor,
) -> int:
    loop = asyncio.get_running_loop()
    signalled = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, signalled.set)
    hub = await HubProcess.start(config, listening, workers, restarted, makers)
    try:
        ready(hub)
        log.info("The hub process is ready.", store=config.store.partition(":")[0])
        await signalled.wait()
    finally:
        await hub.close()
    return 0


class _Parts(NamedTuple):
    """What runs next to the broker, and ends with it."""

    topic_rules: TopicRules
    sources: Sources
    sinks: Sinks
    alerts: Alerts
    wakes: StreamWakes
    hooks: StreamHooks
    tracer: Tracer | None


class HubProcess:
    """A hub that serves, in the loop in which it was started."""

    def __init__(self, broker: Broker, server: asyncio.AbstractServer, parts: _Parts) -> None:
        self.broker: Final = broker
        self._rebuild: Recovery | None = None
        self._server = server
        self._parts = parts

    @classmethod
    async def start(
        cls,
        config: Config,
        listening: socket.socket,
        workers: int | None = 0,
        restarted: bool = False,
        makers: MakersFor = no_services,
        now_ms: Callable[[], int] = now_ms,
    ) -> "HubProcess":
        """Opens the store and takes workers. Arguments as `run_hub`; `now_ms` is the clock."""
        backbone, store = await _open_backbone(config, now_ms)
        rules = EventRules(config.rules)
        interceptors = make_interceptors(config, rules)
        topic_rules = TopicRules(config)
        publish = intercepting(interceptors, topic_rules.judging(backbone.append))
        tracer = tracer_of(config)
        sources = Sources(config, publish, tracer)
        alerts = Alerts(config.rules, publish)
        sinks = Sinks(config, backbone, store, tracer)

        def counters() -> Mapping[str, int]:
            parts = (backbone, sources, sinks, interceptors, rules, alerts, hooks)
            return {name: count for part in parts for name, count in part.counters().items()}

        wakes, hooks = StreamWakes.of(backbone, config), StreamHooks(config)
        facts: OwnFacts = sinks.facts(sources.facts())
        broker = Broker(
            backbone,
            FrameLimits(config.max_body),
            makers(counters, facts, backbone.append, wakes, hooks),
            store,
        )
        server = await asyncio.get_running_loop().create_unix_server(
            lambda: Session(broker).link, sock=listening
        )
        if alerts:
            broker.on_entries = alerts.on_entries
        hub = cls(broker, server, _Parts(topic_rules, sources, sinks, alerts, wakes, hooks, tracer))
        if restarted and isinstance(backbone, HubMemory):
            hub._rebuild = Recovery(broker, backbone, workers)
            await hub._rebuild.run()
        else:
            broker.open()
        sources.begin()
        sinks.begin()
        return hub

    def apply_rules(self, config: Config) -> None:
        """Keeps, evicts and judges by other `[[topics]]` from now on."""
        self.broker.backbone.apply_rules(config)
        self._parts.topic_rules.apply(config)
        self._parts.sources.apply_rules(config)

    async def close(self) -> None:
        """Accepts no more workers, closes the links of all workers, ends the store."""
        parts = self._parts
        self._server.close()
        parts.alerts.close()
        await parts.sources.close()
        await parts.sinks.close()
        if parts.tracer is not None:
            await asyncio.to_thread(parts.tracer.close)
        await parts.wakes.close()
        await parts.hooks.close()
        if self._rebuild is not None:
            await self._rebuild.close()
        await self.broker.close()


async def _open_backbone(
    config: Config, now_ms: Callable[[], int]
) -> tuple[KeyedBackbone, ControlStore | None]:
    if config.store == MEMORY:
        return HubMemory(now_ms, config, config), None
    opened = await open_stores(config, now_ms)
    # Every store keeps the keys of batches; only memory in one process has none.
    return cast("KeyedBackbone", opened.backbone), opened.control_store
