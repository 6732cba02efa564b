"""A master and two workers: the master's figures are the sum of theirs."""

import pytest

from tests.loadtests.conftest import Result
from tests.loadtests.runs import STREAMS

pytestmark = [pytest.mark.timeout(300), pytest.mark.locust_run("distributed")]
EVENTS = 20


def test_workers_deliveries_arrive_at_the_master_to_the_last_one(result: Result) -> None:
    assert result.exit_code == 0, result.output
    assert len(result.swarms) == 2
    assert result.count("publish", "answer") == EVENTS
    assert result.count("swarm", "delivery") == result.swarm_total("events")
    assert result.swarm_total("events") == 2 * STREAMS * EVENTS
    assert result.count("sse", "delivery") == 4 * EVENTS


def test_the_masters_exact_figures_hold_every_workers_value(result: Result) -> None:
    found: dict[int, int] = {}
    for swarm in result.swarms:
        for value, count in swarm["measures"]["latency"]["values_us"]:
            found[value] = found.get(value, 0) + count
    exact = result.whole["measures"]["swarm delivery"]["values_us"]
    assert dict(map(tuple, exact)) == found


def test_nothing_is_lost_on_any_worker(result: Result) -> None:
    assert result.failed == {}
    assert [sum(swarm["faults"].values()) for swarm in result.swarms] == [0, 0]
