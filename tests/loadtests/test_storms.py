"""Everyone is cut off at once, and the load shapes that lead there."""

import pytest

from tests.loadtests.conftest import Result

pytestmark = pytest.mark.timeout(300)


@pytest.mark.locust_run("restart")
def test_all_readers_come_back_after_the_server_was_restarted(result: Result) -> None:
    assert "The server is back." in result.output
    assert result.count("swarm", "resume") == result.swarm_total("resumed") == 50
    assert result.count("sse", "resume") == 4
    assert result.count("sse", "ended") == 4


@pytest.mark.locust_run("restart")
def test_what_a_restart_made_them_miss_is_announced_not_lost(result: Result) -> None:
    assert [result.count(kind, "lost") for kind in ("sse", "swarm")] == [0, 0]
    assert result.count("sse", "gap") == 4
    assert result.count("swarm", "gap") == result.swarm_total("gaps_announced") == 50


@pytest.mark.locust_run("cut")
def test_all_readers_that_a_network_cuts_resume_without_loss(result: Result) -> None:
    assert result.exit_code == 0, result.output
    assert result.count("swarm", "resume") == result.swarm_total("cut") == 50
    assert result.count("sse", "resume") == 4
    assert result.failed == {}


@pytest.mark.locust_run("spike")
def test_a_spike_brings_all_readers_and_takes_them_away_again(result: Result) -> None:
    assert result.exit_code == 0, result.output
    assert result.count("sse", "open") == 10
    for users in (2, 11, 2):
        assert f"updating to {users} users" in result.output
