"""A gap event comes exactly when something is missing: over every store, with one worker and with
two, on streams of several topics that are on their way to live while events are evicted."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.redis.conftest import NO_SERVER
from tests.redis.server import RedisServer, program, running
from tests.replays.trial import (
    GAP,
    OPTIONS,
    SMALL_TOTAL,
    Publisher,
    Subscriber,
    Trial,
    configuration,
    judge,
    run,
)
from tests.supervisor.conftest import Serve, serve
from tests.supervisor.service import Service

__all__ = ["serve"]

# Each seed is another trial; `python -m tests.replays.trial` runs any number of them.
SEEDS = range(8)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    if program() is None:
        pytest.skip(NO_SERVER)
    with running(tmp_path / "redis") as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        url: str = request.getfixturevalue("redis").url
        return url
    return f"sqlite:{tmp_path / 'history.db'}" if request.param == "sqlite" else "memory"


@pytest.fixture(params=[1, 2])
async def service(
    request: pytest.FixtureRequest, serve: Serve, store: str, tmp_path: Path
) -> Service:
    """A service whose rules keep 1, 6 and 30 events of a topic."""
    rules = str(configuration(tmp_path))
    words = ("--workers", str(request.param), "--store", store, "--history-total", SMALL_TOTAL)
    return await serve("--config", rules, *OPTIONS, *words)


async def test_replays_have_a_gap_exactly_when_something_is_missing(service: Service) -> None:
    await _evictions_below_those_of_a_busy_topic_have_a_gap(service)
    trials = [await run(service.url, seed) for seed in SEEDS]
    assert {trial.seed: wrong for trial in trials if (wrong := judge(trial))} == {}


async def _evictions_below_those_of_a_busy_topic_have_a_gap(service: Service) -> None:
    """The busy topic's eviction lies above everything that the quiet one evicts later."""
    trial = Trial(0, "below")
    trial.selectors = ("cold/below", "hot/below")
    publisher = Publisher(service.url, trial)
    subscriber = Subscriber(service.url, "topic=cold/below&topic=hot/below&last_event_id=earliest")
    try:
        for topic, count, size in (("cold/below", 30, 60_000), ("hot/below", 2, 10)):
            for _ in range(count):
                await publisher.publish((topic,), size)
        await subscriber.open()
        for _ in range(25):
            await publisher.publish(("cold/below",), 60_000)
        end = await publisher.publish(("hot/below",), 10)
        await subscriber.read_until(end.name)
    finally:
        publisher.close()
        subscriber.close()
    trial.received, trial.was_cut = subscriber.received, subscriber.is_ended
    gaps = [index for index, message in enumerate(trial.received) if message.type == GAP]
    # One for the event that the busy topic had evicted, one for those of the quiet one. A store
    # that evicts the busy topic's event after the replay began reports both in one.
    assert len(gaps) == 1 or (len(gaps) == 2 and gaps[0] == 0)
    assert judge(trial) == []
