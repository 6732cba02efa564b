"""Readers that stay, come and go, or don't read, all on one topic."""

import pytest

from tests.loadtests.conftest import Result

pytestmark = [pytest.mark.timeout(300), pytest.mark.locust_run("mix")]
EVENTS = 300


def test_a_reader_that_stays_gets_every_event_once(result: Result) -> None:
    assert result.exit_code == 0, result.output
    assert result.count("publish", "answer") == EVENTS
    assert result.count("sse", "delivery") == 2 * EVENTS


def test_readers_that_come_and_go_miss_nothing_and_get_nothing_twice(result: Result) -> None:
    assert result.count("again", "return") > 3
    assert result.count("again", "left") >= result.count("again", "return")
    # Three readers got each event once, live or replayed, whenever they were there.
    got = result.count("again", "delivery") + result.count("again", "replay")
    assert got == 3 * EVENTS
    assert [result.count("again", name) for name in ("lost", "repeated", "gap")] == [0, 0, 0]


def test_a_reader_that_does_not_read_is_ended_by_the_servers_policy(result: Result) -> None:
    assert result.count("slow", "ended") >= 2
    assert result.failures("slow", "open") == 0
