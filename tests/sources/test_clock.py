"""The wall clock is set while sources run: by an hour forward, back, and behind."""

import asyncio
import contextlib
import json
import pathlib
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest

from fastsse.client.publisher import Publisher
from tests.auth.minting import SECRET, mint
from tests.redis import cluster
from tests.redis.cluster import Subscriber, until
from tests.sources import kraft, tansu
from tests.sources.flows import metric
from tests.sources.systems import SYSTEMS
from tests.supervisor.service import Service
from tests.wallclock import WallClock

HOUR_S = 3_600
CHANGED = "The clock of the machine was changed."
ASSIGNED = "Partitions were assigned to a source."
NAMES = ("files", "kafka", "redis-stream", "jetstream", "postgres-outbox", "mqtt")
# How much of each source must come after each change.
_MORE = 20
_PAUSE_S = 0.02


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    return json.dumps(value)


@asynccontextmanager
async def served(
    folder: pathlib.Path, clock: WallClock, sources: list[dict[str, Any]], *flags: str
) -> AsyncIterator[Service]:
    """A service with these sources, whose processes have the clock."""
    path = folder / "fastsse.toml"
    tables = ("".join(f"{_toml(k)} = {_toml(v)}\n" for k, v in one.items()) for one in sources)
    path.write_text("".join(f"[[sources]]\n{table}\n" for table in tables))
    fixed = ("--port", "0", "--config", str(path), "--drain", "0s")
    service = await Service.start(*fixed, *flags, **clock.variables)
    try:
        yield await service.wait()
    finally:
        await service.stop()


@contextmanager
def started(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    """All systems; their own clocks are not set."""
    with contextlib.ExitStack() as stack:
        systems = {}
        for name in NAMES:
            systems[name] = SYSTEMS[name](folder / name)
            stack.callback(systems[name].close)
            systems[name].start()
        yield systems


class Flow:
    """Sends numbers to all systems until it is ended, and what a viewer has of them."""

    def __init__(self, systems: dict[str, Any], viewer: Subscriber) -> None:
        self._systems, self._viewer = systems, viewer
        self._ended = asyncio.Event()
        self.sent = 0

    async def run(self) -> None:
        while not self._ended.is_set():
            for name, system in self._systems.items():
                await asyncio.to_thread(system.send, [f"{name}-{self.sent}".encode()])
            self.sent += 1
            await asyncio.sleep(_PAUSE_S)

    async def has_more(self) -> None:
        """Returns when the viewer has more of each, sent from now on."""
        behind = self.sent + _MORE
        await self._viewer.saw(*(f"{name}-{behind}" for name in self._systems))

    async def ends(self, sending: asyncio.Task[None]) -> None:
        """Returns when the viewer has all that was sent."""
        self._ended.set()
        await sending
        await self._viewer.saw(*(f"{name}-{self.sent - 1}" for name in self._systems))


def _place(position: str) -> tuple[int, int]:
    ms, _, number = position.partition("-")
    return int(ms), int(number)


def _token(left_s: int) -> str:
    rights = {"subscribe": ["*"], "publish": ["*"]}
    return mint({"mercure": rights, "exp": int(time.time()) + left_s}).decode()


async def test_a_clock_that_is_set_loses_and_repeats_nothing_of_any_source(
    tmp_path: pathlib.Path,
) -> None:
    clock = WallClock(tmp_path / "clock")
    flags = ("--workers", "2", "--store", f"sqlite:{tmp_path}/h.db")
    with started(tmp_path / "systems") as systems:
        sources = [{"name": name, "topic": "t", **system.rule} for name, system in systems.items()]
        async with served(tmp_path, clock, sources, *flags) as service:
            await _until_ready(service, systems)
            viewer = Subscriber(service.url, "t")
            try:
                flow = Flow(systems, viewer)
                sending = asyncio.create_task(flow.run())
                await flow.has_more()
                for count, ahead_s in enumerate((HOUR_S, 0, -HOUR_S, 0), 1):
                    clock.set(ahead_s)
                    # The supervisor's children look at it once a second.
                    await service.logged(CHANGED, count=2 * count)
                    await flow.has_more()
                await flow.ends(sending)
                assert viewer.connections == 1
                assert viewer.gaps == []
            finally:
                await viewer.close()
            for name in systems:
                seen = [text for text in viewer.seen if text.startswith(name)]
                assert seen == [f"{name}-{number}" for number in range(flow.sent)]
            places = [_place(position) for position in viewer.ids]
            assert places == sorted(set(places))
            await _shows_what_happened(service, systems)


async def _states(service: Service) -> dict[str, Any]:
    answer = await cluster.get(service.url, "/admin/sources")
    return {one["name"]: one for one in answer.json()["sources"]}


async def _until_ready(service: Service, systems: dict[str, Any]) -> None:
    async with asyncio.timeout(90):
        while True:
            states = await _states(service)
            is_read = all(system.is_read() for system in systems.values())
            if is_read and all(one["state"] == "ready" for one in states.values()):
                return
            await asyncio.sleep(0.1)


async def _shows_what_happened(service: Service, systems: dict[str, Any]) -> None:
    """What operators see: sources without a delay, and ids ahead of the clock."""
    await _until_ready(service, systems)
    async with asyncio.timeout(60):
        while any(one["lag_ms"] for one in (await _states(service)).values()):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert (await cluster.get(service.url, "/readyz")).status_code == 200
    assert await metric(service.url, "fastsse_clock_jumps_total") >= 8
    ahead_s = await metric(service.url, "fastsse_positions_ahead_seconds")
    assert HOUR_S - 600 < ahead_s <= HOUR_S


async def test_what_expires_goes_by_the_clock_as_it_is_now(tmp_path: pathlib.Path) -> None:
    """Tokens, events with a time to live, and delayed ones, each with half an hour left."""
    clock = WallClock(tmp_path / "clock")
    store = ("--store", f"sqlite:{tmp_path}/h.db", "--history-age", "30d")
    flags = ("--workers", "2", "--jwt-key", SECRET, *store)
    half = {"Authorization": f"Bearer {_token(HOUR_S // 2)}"}
    whole = _token(100 * HOUR_S)
    async with (
        served(tmp_path, clock, [], *flags) as service,
        httpx.AsyncClient(base_url=service.url, trust_env=False, timeout=60) as client,
        Publisher(service.url, token=whole) as publisher,
    ):
        later = Subscriber(service.url, "later", token=whole)
        await later.opened.wait()
        kept = {"topic": "kept", "last": 5, "wait": 0}
        bearer = {"Authorization": f"Bearer {whole}"}

        async def shown() -> list[str]:
            answer = await client.get("/events", params=kept, headers=bearer)
            assert answer.json()["gap"] is None, answer.text
            return [event["data"] for event in answer.json()["events"]]

        await publisher.publish("kept", "for a while", ttl="30m")
        await publisher.publish("kept", "for good")
        await publisher.publish("later", "delayed", delay="30m")
        async with client.stream("GET", "/events", params={"topic": "x"}, headers=half) as stream:
            assert stream.status_code == 200
            assert await shown() == ["for a while", "for good"]
            clock.set(HOUR_S)
            # It ends by itself; a client that returns with the token is refused.
            with contextlib.suppress(httpx.RemoteProtocolError):
                async with asyncio.timeout(60):
                    async for _ in stream.aiter_bytes():
                        pass
        refused = await client.get("/events", params={"topic": "x"}, headers=half)
        assert refused.status_code == 401
        await later.saw("delayed")
        await until(lambda: later.seen == ["delayed"])
        assert "for a while" not in await shown()
        clock.set(0)
        async with client.stream("GET", "/events", params={"topic": "x"}, headers=half) as stream:
            assert stream.status_code == 200
        await publisher.publish("later", "delayed again", delay="1s")
        await later.saw("delayed again")
        assert later.seen == ["delayed", "delayed again"]
        assert later.connections == 1
        await later.close()


async def test_a_quiet_kafka_source_stays_in_its_group_when_the_clock_is_set_back(
    tmp_path: pathlib.Path,
) -> None:
    """The library waits by the wall clock: a read that was under way when that was set back lasts
    until the next message. Heartbeats go on, and so does the end of the service."""
    if kraft.jars() is None:
        pytest.skip(f"no Apache Kafka here: {kraft.__doc__}")
    clock, broker = WallClock(tmp_path / "clock"), kraft.Kafka(tmp_path / "kafka")
    source = {
        "name": "k", "url": broker.url, "topics": ["logs"], "topic": "t", "settings": tansu.SETTINGS
    }  # fmt: skip
    try:
        await asyncio.to_thread(broker.start)
        tansu.make_topic(broker.servers, "logs")
        async with served(tmp_path, clock, [source], "--store", "memory") as service:
            viewer = Subscriber(service.url, "t")
            tansu.produce(broker.servers, "logs", ["first"])
            await viewer.saw("first")
            clock.set(-HOUR_S)
            await service.logged(CHANGED)
            session_s = tansu.SETTINGS["session.timeout.ms"] / 1000
            # No message wakes the library meanwhile.
            await asyncio.sleep(2 * session_s)
            assert await asyncio.to_thread(tansu.members, broker.servers, "fastsse") == 1
            tansu.produce(broker.servers, "logs", ["second"])
            await viewer.saw("second")
            await viewer.close()
            assert sum(one.get("event") == ASSIGNED for one in service.log) == 1
            service.signal(signal.SIGTERM)
            async with asyncio.timeout(20):
                await service.ended()
    finally:
        broker.close()
