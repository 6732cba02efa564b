"""A client that resumes after the same id again and again is found, by a log line and a figure."""

import pytest

from fastsse.config import StreamOptions
from fastsse.errors import EventTooLarge
from fastsse.hub.resume.repeats import REMEMBERED_MAX, REPEATS_MIN, WINDOW_S, RepeatedResumes
from tests.hub.onenode import MakeNode, Node


class Client:
    """Opens streams after one id, one after the other."""

    def __init__(self, returns: RepeatedResumes, name: str = "192.0.2.1") -> None:
        self.returns = returns
        self.name = name
        self.stream = 0

    def comes(self, after: bytes = b"1-1", reason: str | None = "client_closed") -> None:
        self.stream += 1
        self.returns.resumed(self.stream, self.name, ("t",), after)
        if reason is not None:
            self.returns.ended(self.stream, reason)


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def returns(now: list[float]) -> RepeatedResumes:
    return RepeatedResumes(lambda: now[0])


def test_a_client_that_ends_its_streams_after_one_id_is_counted(
    returns: RepeatedResumes,
) -> None:
    client = Client(returns)
    for _ in range(REPEATS_MIN - 1):
        client.comes()
    assert returns.repeated == 0
    for _ in range(REPEATS_MIN):
        client.comes()
    assert returns.repeated == REPEATS_MIN


def test_a_client_that_resumes_again_and_again_is_logged_at_each_doubling(
    returns: RepeatedResumes, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(returns)
    for _ in range(4 * REPEATS_MIN):
        client.comes()
    lines = [vars(record) for record in caplog.records]
    assert all("resumes after the same id again and again" in one["message"] for one in lines)
    assert [one["streams"] for one in lines] == [5, 10, 20]
    assert lines[0]["levelname"] == "WARNING"
    assert (lines[0]["client"], lines[0]["after"]) == ("192.0.2.1", "1-1")


def test_a_client_that_gets_on_is_not_counted(returns: RepeatedResumes) -> None:
    client = Client(returns)
    for n in range(10 * REPEATS_MIN):
        client.comes(after=b"1-%d" % n)
    assert returns.repeated == 0


def test_streams_that_the_server_ends_are_not_counted(returns: RepeatedResumes) -> None:
    client = Client(returns)
    for _ in range(10 * REPEATS_MIN):
        client.comes(reason="drained")
    assert returns.repeated == 0


def test_many_clients_behind_one_address_are_not_one_that_returns(returns: RepeatedResumes) -> None:
    client = Client(returns)
    for _ in range(10 * REPEATS_MIN):
        client.comes(reason=None)
    assert returns.repeated == 0


def test_a_client_that_was_away_for_long_begins_a_new_count(
    returns: RepeatedResumes, now: list[float]
) -> None:
    client = Client(returns)
    for _ in range(10 * REPEATS_MIN):
        client.comes()
        now[0] += WINDOW_S + 1
    assert returns.repeated == 0


def test_what_is_remembered_is_bounded(returns: RepeatedResumes) -> None:
    for n in range(3 * REMEMBERED_MAX):
        Client(returns, name=str(n)).comes(reason=None)
        returns.resumed(1_000_000 + n, "somebody", ("t",), b"1-%d" % n)
    assert len(returns._clients) <= REMEMBERED_MAX
    assert len(returns._by_stream) <= REMEMBERED_MAX


def test_a_stream_that_fails_at_the_same_event_shows_in_the_figures(node: Node) -> None:
    first = node.publish("t", "small")
    node.publish("t", "x" * 70_000)
    for _ in range(REPEATS_MIN):
        client = node.resume("t", after=first)
        node.run_until_received(client, 1)
        node.hang_up(client)
    assert node.hub.counters()["repeated_resumes"] == 1


def test_a_quiet_topic_that_is_resumed_again_and_again_does_not(node: Node) -> None:
    last = node.publish("t", "small")
    for _ in range(3 * REPEATS_MIN):
        client = node.resume("t", after=last)
        node.run_until(lambda client=client: client.body != b"")  # type: ignore[misc]
        node.hang_up(client)
    assert node.hub.counters()["repeated_resumes"] == 0


def test_an_event_above_max_event_is_refused_and_one_at_it_is_taken(make_node: MakeNode) -> None:
    node = make_node(streams=StreamOptions(max_event="1KiB"))
    node.publish("t", "x" * 1024)
    with pytest.raises(EventTooLarge) as caught:
        node.publish("t", "x" * 1025)
    assert (caught.value.status, caught.value.field) == (413, "data")
    assert "1024" in caught.value.detail
    assert node.hub.history.events == 1
