"""What one client may do: by address and by subject, and what the answer above a limit says."""

import pytest

from fastsse.api import rate_limits
from fastsse.api.rate_limits import RateLimits
from fastsse.config import Config
from tests.http.conftest import Start
from tests.http.raw import connected, get, request, until


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def made(**limits: object) -> tuple[RateLimits, Clock]:
    clock = Clock()
    return RateLimits(Config(**limits), clock), clock


def test_without_limits_no_account_is_kept() -> None:
    assert not made()[0].active


def test_streams_are_counted_until_they_end() -> None:
    limits, _ = made(address_streams=2)
    owner = limits.owner("203.0.113.5", None)
    for stream in (1, 2):
        assert limits.may_open(owner, replays=False)
        limits.on_stream_opened(stream, owner)
    assert not limits.may_open(owner, replays=False)
    assert limits.may_open(limits.owner("203.0.113.6", None), replays=False)
    limits.on_stream_closed(1)
    limits.on_stream_closed(1)
    assert limits.may_open(owner, replays=False)
    assert limits.counters()["limited_address_streams"] == 1


def test_a_rate_allows_two_seconds_worth_at_once_and_then_so_many_a_second() -> None:
    limits, clock = made(address_opens=5)
    owner = limits.owner("203.0.113.5", None)

    def opens() -> int:
        return sum(limits.may_open(owner, replays=False) for _ in range(50))

    assert opens() == 10
    clock.now_s += 1
    assert opens() == 5
    clock.now_s += 3600
    assert opens() == 10


def test_a_refused_publisher_receives_a_retry_time() -> None:
    limits, clock = made(subject_publishes=2)
    owner = limits.owner("203.0.113.5", "ann")
    assert [limits.publish_wait_s(owner) for _ in range(4)] == [0, 0, 0, 0]
    assert limits.publish_wait_s(owner) == pytest.approx(0.5)
    clock.now_s += 0.5
    assert limits.publish_wait_s(owner) == 0
    limits.published_more(owner, 9)
    assert limits.publish_wait_s(owner) == pytest.approx(5)
    assert limits.publish_wait_s(limits.owner("203.0.113.5", "bob")) == 0
    assert limits.publish_wait_s(limits.owner("203.0.113.5", None)) == 0


def test_a_replay_is_owed_until_time_has_paid_for_it() -> None:
    limits, clock = made(address_replay=1000)
    owner = limits.owner("203.0.113.5", None)
    assert limits.may_open(owner, replays=True)
    limits.on_stream_opened(1, owner)
    limits.on_replayed(1, 12_000)
    assert not limits.may_open(owner, replays=True)
    assert limits.may_open(owner, replays=False)
    clock.now_s += 10.1
    assert limits.may_open(owner, replays=True)


def test_nothing_is_taken_by_what_is_refused() -> None:
    limits, _ = made(address_opens=1, subject_streams=1)
    ann = limits.owner("203.0.113.5", "ann")
    assert limits.may_open(ann, replays=False)
    limits.on_stream_opened(1, ann)
    assert not limits.may_open(ann, replays=False)
    assert limits.may_open(limits.owner("203.0.113.5", "bob"), replays=False)


def test_a_subject_can_not_pass_for_another() -> None:
    limits, _ = made(subject_streams=1)
    names = {limits.owner("x", subject).subject for subject in ("", "a", "=a", "a" * 65, "a" * 999)}
    assert len(names) == 5
    assert max(map(len, names)) <= 128


def test_accounts_are_kept_within_bounds_and_open_streams_counted_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rate_limits, "ACCOUNTS_MAX", 100)
    limits, _ = made(address_streams=1, address_opens=1000)
    kept = limits.owner("203.0.113.5", None)
    limits.may_open(kept, replays=False)
    limits.on_stream_opened(1, kept)
    for number in range(5_000):
        limits.may_open(limits.owner(f"2001:470:{number:x}::1", None), replays=False)
    assert len(limits._addresses) <= 101
    assert not limits.may_open(kept, replays=False)


async def test_a_client_with_too_many_streams_receives_a_retry_time(start: Start) -> None:
    server = await start(address_streams=1)
    async with connected(server) as first, connected(server) as second:
        await first.send(get("/events?topic=a"))
        await (await first.stream()).opening()
        await second.send(get("/events?topic=a"))
        status, headers = await second.head()
        body = await second.rest()
        # Never an error: that would end an EventSource for good.
        assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert body.startswith(b"retry: ")
        assert int(body.split()[1]) >= 5_000
    await until(lambda: server.stream_count == 0)
    async with connected(server) as third:
        await third.send(get("/events?topic=a"))
        assert b"id:" in await (await third.stream()).opening()


async def test_a_client_that_publishes_too_much_gets_429_and_a_time(start: Start) -> None:
    server = await start(address_publishes=1)
    for status in (200, 200, 429):
        async with connected(server) as raw:
            await raw.send(request("POST", "/events?topic=a", body=b"x"))
            answer = await raw.answer()
            assert answer.status == status
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.field is None
    async with connected(server) as raw:
        await raw.send(get("/metrics"))
        metrics = (await raw.answer()).body
    assert b'fastsse_limited_total{limit="address_publishes"} 1.0' in metrics


async def test_a_client_may_not_have_its_history_read_again_and_again(start: Start) -> None:
    server = await start(address_replay="10KB")
    for _ in range(10):
        server.publish("a", "x" * 10_000)
    opened_with_all = 0
    for _ in range(5):
        async with connected(server) as raw:
            await raw.send(get("/events?topic=a&since=earliest"))
            body = await (await raw.stream()).opening()
            opened_with_all += b"id:" in body
    assert opened_with_all == 1
