"""The topic rule `max_publish_rate` holds for a topic, whichever publisher sends."""

from collections.abc import AsyncIterator

import pytest

from fastsse.config import Config
from fastsse.events import Event
from fastsse.hub.publish_rates import PublishRates
from fastsse.hub.topics import Rules, Topics
from fastsse.server import Server
from tests.http.conftest import asked
from tests.http.raw import connected, get, request

RULES = [{"match": "slow/*", "max_publish_rate": 5}]


def rates(now: list[float]) -> PublishRates:
    config = Config(topics=RULES)
    return PublishRates(Topics(Rules(config, "disconnect"), 0), lambda: now[0])


class Entry:
    def __init__(self, *topics: str) -> None:
        self.topics = topics


def published(limits: PublishRates, topic: str, count: int = 1) -> bool:
    events = [Event(topic, b"x")] * count
    if limits.objection(events) is not None:
        return False
    limits.on_entries([Entry(topic)] * count)  # type: ignore[list-item]
    limits.ended(events)
    return True


def test_a_topic_takes_two_seconds_at_once_and_then_its_rate() -> None:
    now = [100.0]
    limits = rates(now)
    assert [published(limits, "slow/a") for _ in range(12)] == [True] * 10 + [False] * 2
    now[0] += 0.4
    assert [published(limits, "slow/a") for _ in range(3)] == [True, True, False]
    assert published(limits, "slow/b")
    assert all(published(limits, "other") for _ in range(100))


def test_a_refusal_says_when_to_return() -> None:
    now = [0.0]
    limits = rates(now)
    assert published(limits, "slow/a", 40)
    refused = limits.objection([Event(["other", "slow/a"], b"x")])
    assert refused is not None
    assert (refused.topic, refused.rate, refused.retry_after_s) == ("slow/a", 5, 7)
    now[0] += 6.3
    assert published(limits, "slow/a")


def test_what_others_publish_counts_and_what_is_under_way_too() -> None:
    now = [0.0]
    limits = rates(now)
    limits.on_entries([Entry("slow/a")] * 4)  # type: ignore[list-item]
    under_way = [Event("slow/a", b"x")] * 6
    assert limits.objection(under_way) is None
    assert limits.objection(under_way[:1]) is not None
    limits.ended(under_way)  # Refused by the store: nothing came down the log.
    assert limits.objection(under_way[:1]) is None


def test_full_buckets_are_forgotten() -> None:
    now = [0.0]
    limits = rates(now)
    for number in range(1_000):
        assert published(limits, f"slow/{number}")
    assert len(limits) == 1_000
    now[0] += 1
    limits.sweep()
    assert len(limits) == 0


def test_other_rules_change_the_rate_of_topics_that_are_in_use() -> None:
    now = [0.0]
    config = Config(topics=RULES)
    topics = Topics(Rules(config, "disconnect"), 0)
    limits = PublishRates(topics, lambda: now[0])
    under_way = [Event("slow/a", b"x")]
    assert limits.objection(under_way) is None
    assert published(limits, "slow/a", 9)
    topics.rules.apply(Config(topics=[{"match": "slow/*", "max_publish_rate": 2}]))
    limits.apply_rules()
    assert not published(limits, "slow/a")
    now[0] += 1
    assert [published(limits, "slow/a") for _ in range(3)] == [True, True, False]
    topics.rules.apply(Config())
    limits.apply_rules()
    assert not limits.active
    topics.rules.apply(config)
    limits.apply_rules()
    limits.ended(under_way)  # Its bucket is gone: nothing is given back to the new one.
    assert limits.active
    assert [published(limits, "slow/a") for _ in range(12)] == [True] * 10 + [False] * 2


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server(Config(port=0, drain=0, topics=RULES)) as running:
        yield running


async def test_a_publisher_above_the_rate_is_answered_with_429(server: Server) -> None:
    publish = request("POST", "/events?topic=slow/a", body=b"x")
    async with connected(server) as raw:
        await raw.send(publish * 12 + get("/healthz"))
        answers = [await raw.answer() for _ in range(12)]
        assert [answer.status for answer in answers] == [200] * 10 + [429] * 2
        assert (await raw.answer()).status == 200
    refused = answers[-1]
    assert refused.headers["retry-after"] == "1"
    assert refused.field == "topic"
    assert refused.json["topic"] == "slow/a"
    assert "max_publish_rate" in refused.json["detail"]
    assert (await asked(server, "POST", "/events?topic=fast", body=b"x")).status == 200
    metrics = (await asked(server, "GET", "/metrics")).body.decode()
    assert 'fastsse_publish_refused_total{reason="rate"} 2.0' in metrics


@pytest.mark.parametrize("value", [0, -1, 1_000_001, "x", 0.5])
def test_a_rate_out_of_bounds_is_refused(value: object) -> None:
    with pytest.raises(Exception, match="max_publish_rate"):
        Config(topics=[{"match": "a", "max_publish_rate": value}])
