"""Every scenario as a headless run: what was published reached everyone it was for, once."""

import pytest

from tests.loadtests.conftest import Result
from tests.loadtests.runs import READERS, STREAMS

EVENTS = {"news": 20, "ticks": 300, "notifications": 202, "log": 200}
"""Published in one second."""

EVENTS_A_READER = {
    "news": 20,
    "ticks": 3 * 3,  # three symbols, each with 3 of 300 on 100
    "notifications": 2 + 2,  # its own and the announcements, each with 2 of 202 on 101
    "log": 20,  # one of ten
}

scenarios = pytest.mark.parametrize(
    "scenario", [pytest.param(s, marks=pytest.mark.locust_run(s)) for s in EVENTS]
)
pytestmark = pytest.mark.timeout(300)


@scenarios
def test_all_that_was_published_reaches_each_python_reader(result: Result, scenario: str) -> None:
    assert result.exit_code == 0, result.output
    assert result.count("publish", "answer") == EVENTS[scenario]
    assert result.count("sse", "open") == READERS
    assert result.count("sse", "first event") == READERS
    assert result.count("sse", "delivery") == READERS * EVENTS_A_READER[scenario]


@scenarios
def test_the_swarms_deliveries_in_locust_are_those_of_its_json(
    result: Result, scenario: str
) -> None:
    (swarm,) = result.swarms
    assert result.count("swarm", "delivery") == swarm["counters"]["events"]
    assert swarm["counters"]["events"] == STREAMS * EVENTS_A_READER[scenario]
    assert result.count("swarm", "open") == swarm["counters"]["streams"] == STREAMS


@scenarios
def test_locusts_latencies_are_the_swarms(result: Result, scenario: str) -> None:
    (swarm,) = result.swarms
    latency = swarm["measures"]["latency"]
    entry = result.locust["swarm", "delivery"]
    assert sum(entry["response_times"].values()) == latency["count"]
    assert entry["max_response_time"] == pytest.approx(latency["max_ms"])
    exact = result.whole["measures"]["swarm delivery"]
    assert exact["values_us"] == latency["values_us"]


@scenarios
def test_nothing_is_lost_twice_or_out_of_order(result: Result, scenario: str) -> None:
    assert result.failed == {}
    assert sum(result.swarms[0]["faults"].values()) == 0
    assert result.count("sse", "announced") == result.count("sse", "conflated") == 0


@scenarios
def test_a_publish_is_timed_from_when_it_was_due(result: Result, scenario: str) -> None:
    counts = [result.count("publish", name) for name in ("delay", "answer", "total")]
    assert counts == [EVENTS[scenario]] * 3
    sums = {name: result.locust["publish", name]["total_response_time"] for _, name in result.locust
            if ("publish", name) in result.locust}  # fmt: skip
    assert sums["total"] == pytest.approx(sums["delay"] + sums["answer"])


@pytest.mark.locust_run("news")
def test_a_runs_json_says_what_was_run_and_on_what(result: Result) -> None:
    whole = result.whole
    assert whole["options"]["streams"] == STREAMS
    assert whole["machine"]["kernel"]
    assert whole["target"].endswith("/events")
    assert whole["server"][-1]["deliveries"] >= (STREAMS + READERS) * EVENTS_A_READER["news"]
    assert "client stall" in whole["measures"]
