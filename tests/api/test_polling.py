"""Polls: pages of history as JSON and NDJSON, at once and when an event comes."""

import asyncio
import contextlib
import json
import logging
import time

import pytest

from fastsse.client import StreamView, fetch_page
from tests.auth.minting import SECRET, grants, mint
from tests.http.conftest import asked
from tests.http.raw import connected, get, narrow, until

LINES = "Accept: application/x-ndjson"


def data_of(page: dict) -> list:
    return [event["data"] for event in page["events"]]


async def test_a_page_has_the_events_the_next_place_and_nothing_missing(ask, server) -> None:
    ids = [server.publish("a", {"n": n}, event="x", meta={"m": 1}) for n in range(3)]
    page = (await ask("GET", "/events?topic=a&wait=0&since=earliest")).json
    assert page["next"] == ids[-1]
    assert (page["gap"], page["ended"]) == (None, False)
    assert [event["id"] for event in page["events"]] == ids
    first = page["events"][0]
    assert first == {**first, "topic": "a", "data": {"n": 0}, "event": "x", "meta": {"m": 1}}
    for query, header in ((f"&last_event_id={ids[0]}", "X: 1"), ("", f"Last-Event-ID: {ids[0]}")):
        page = (await ask("GET", f"/events?topic=a&wait=0{query}", header)).json
        assert data_of(page) == [{"n": 1}, {"n": 2}]
    page = (await ask("GET", f"/events?topic=a&wait=0&last_event_id={ids[-1]}")).json
    assert page == {"events": [], "next": ids[-1], "gap": None, "ended": False}
    lines = (await ask("GET", "/events?topic=a&wait=0&last=2", LINES)).body.splitlines()
    *events, end = map(json.loads, lines)
    assert [event["id"] for event in events] == ids[1:]
    assert end == {"next": ids[-1], "gap": None, "ended": False}


async def test_an_unknown_parameter_of_a_poll_is_named_in_a_header(ask, server) -> None:
    for more in ("", "&since=earliest"):
        answer = await ask("GET", f"/events?topic=a&wait=0&max_rat=1{more}")
        assert answer.status == 200
        assert "max_rat" in answer.headers["fastsse-warning"]
    answer = await ask("GET", "/events?topic=a&wait=0&max_rate=1")
    assert "fastsse-warning" not in answer.headers


async def test_polls_with_unknown_parameters_are_counted_and_logged(start, caplog) -> None:
    caplog.set_level(logging.WARNING)
    server = await start(access_lines=100)
    await asked(server, "GET", "/events?topic=a&wait=0&max_rat=1")
    await asked(server, "GET", "/events?topic=a&wait=0")
    metrics = (await asked(server, "GET", "/metrics")).body
    assert b"\nfastsse_unknown_parameters_total 1.0\n" in metrics
    (line,) = [one for one in caplog.records if one.message == "Unknown parameters."]
    assert vars(line)["client"].startswith("127.0.0.1:")
    assert vars(line)["notes"].startswith("the parameter max_rat is unknown")


async def test_a_long_history_comes_page_by_page_without_repeats(ask, server) -> None:
    sent = [server.publish(("a", "b")[n % 2], "x" * 2_000) for n in range(300)]
    received, place, pages = [], "earliest", 0
    while len(received) < len(sent):
        page = (await ask("GET", f"/events?topic=a&topic=b&wait=0&last_event_id={place}")).json
        received += [event["id"] for event in page["events"]]
        place, pages = page["next"], pages + 1
    assert received == sent
    assert pages > 1


async def test_polls_are_answered_by_the_next_event_that_matches(server) -> None:
    url = server.addresses[0]
    head = (await fetch_page(url, "a")).next
    polls = [
        asyncio.create_task(fetch_page(url, topics, wait_s=30, last_event_id=head))
        for topics in ("a", "a", "*", "{x}", "other")
    ]
    view = StreamView(filter="data.n == 2")
    polls.append(asyncio.create_task(fetch_page(url, "a", wait_s=30, view=view)))
    worker = server._worker
    await until(lambda: worker._hub.streams.polls.waiting == 6)
    first = server.publish("a", {"n": 1})
    for poll in polls[:4]:
        page = await asyncio.wait_for(poll, 10)
        assert ([event.data for event in page.events], page.next) == ([{"n": 1}], first)
    assert worker._hub.streams.polls.waiting == 2
    server.publish("a", {"n": 2})
    page = await asyncio.wait_for(polls[5], 10)
    assert [event.data for event in page.events] == [{"n": 2}]
    server.publish("other", "x")
    assert (await asyncio.wait_for(polls[4], 10)).events[0].data == "x"
    assert worker._hub.streams.polls.waiting == 0
    assert len(worker._hub.channels) == 0


async def test_a_poll_without_an_event_is_answered_empty_when_its_time_is_over(ask, server) -> None:
    server.publish("b", "x")
    began_s = time.monotonic()
    page = (await ask("GET", "/events?topic=a&wait=1s")).json
    assert (page["events"], page["gap"], page["ended"]) == ([], None, False)
    assert time.monotonic() - began_s >= 1
    assert len(server._worker._hub.channels) == 0


async def test_gaps_and_ends_are_answered_at_once(start) -> None:
    server = await start(history_events=2)
    first = server.publish("a", "0")
    for n in range(1, 4):
        server.publish("a", str(n))

    async def poll(path: str) -> dict:
        async with connected(server) as raw:
            await raw.send(get(path))
            return (await raw.answer()).json

    page = await poll(f"/events?topic=a&wait=30s&last_event_id={first}")
    assert page["gap"]["reason"] == "evicted"
    assert data_of(page) == ["2", "3"]
    page = await poll("/events?topic=a&wait=30s&last_event_id=unknown")
    assert (page["gap"]["reason"], page["gap"]["requested"]) == ("unknown", "unknown")
    assert page["events"] == []
    end = await server.end_topic("a")
    page = await poll(f"/events?topic=a&wait=30s&last_event_id={end}")
    assert page["ended"] is True
    done = server.publish("run", "done", event="done")
    server.publish("run", "more")
    page = await poll("/events?topic=run&wait=30s&since=earliest&until=done")
    assert (data_of(page), page["ended"]) == (["done"], True)
    page = await poll(f"/events?topic=run&wait=30s&until=done&last_event_id={done}")
    assert (page["events"], page["next"], page["ended"]) == ([], done, True)


async def test_a_rate_bounds_the_answers_to_polls(ask, server) -> None:
    place, spans, seen = "earliest", [], []
    for number in range(60):
        server.publish("a", str(number))
        await asyncio.sleep(0.01)
        if number % 3 == 0:
            query = f"/events?topic=a&wait=20s&max_rate=5&last_event_id={place}"
            page = (await ask("GET", query)).json
            spans.append(time.time() * 1000 // 200)
            place = page["next"]
            seen += data_of(page)
    assert seen == sorted(set(seen), key=int)
    # The first page comes at once. A machine that is busy may skip a span and catch up.
    assert len(spans) <= spans[-1] - spans[0] + 2


async def test_a_poll_waits_for_its_span_no_longer_than_it_asks(ask, server) -> None:
    place = server.publish("a", "x")
    began_s = time.monotonic()
    server.publish("a", "y")
    query = f"/events?topic=a&wait=100ms&max_rate=0.1&last_event_id={place}"
    assert data_of((await ask("GET", query)).json) == ["y"]
    assert time.monotonic() - began_s < 9
    assert data_of((await ask("GET", query.replace("100ms", "0"))).json) == ["y"]


async def test_a_poll_that_waits_for_its_span_ends_with_its_client_and_with_the_server(
    start,
) -> None:
    server = await start(drain=1)
    polls = server._worker._hub.streams.polls
    path = f"/events?topic=a&wait=30s&max_rate=0.1&last_event_id={server.publish('a', 'x')}"
    async with connected(server) as raw:
        await raw.send(get(path))
        await until(lambda: polls.waiting == 1)
        raw.reset()
    await until(lambda: polls.waiting == 0)
    async with connected(server) as raw:
        await raw.send(get(path))
        await until(lambda: polls.waiting == 1)
        server.publish("a", "y")
        await server.drain()
        assert data_of((await raw.answer()).json) == ["y"]
    assert (polls.waiting, len(server._worker._hub.channels)) == (0, 0)


async def test_an_end_of_the_topic_answers_those_that_wait(server) -> None:
    poll = asyncio.create_task(fetch_page(server.addresses[0], "run", wait_s=30))
    await until(lambda: server._worker._hub.streams.polls.waiting == 1)
    await server.end_topic("run")
    assert (await asyncio.wait_for(poll, 10)).ended


async def test_a_drain_answers_those_that_wait(start) -> None:
    server = await start(drain=1)
    poll = asyncio.create_task(fetch_page(server.addresses[0], "a", wait_s=30))
    await until(lambda: server._worker._hub.streams.polls.waiting == 1)
    await server.drain()
    assert (await asyncio.wait_for(poll, 10)).events == ()


async def test_private_events_need_a_grant_and_places_do_not_show_them(start) -> None:
    server = await start(jwt_key=SECRET, anonymous=True)
    url = server.addresses[0]
    public = server.publish("a", "public")
    secret = server.publish("a", "secret", private=True, id="mine")
    page = await fetch_page(url, "a", since="earliest")
    assert ([event.data for event in page.events], page.next) == (["public"], public)
    token = mint(grants(subscribe=["a"])).decode()
    page = await fetch_page(url, "a", since="earliest", token=token)
    assert [event.id for event in page.events] == [public, secret]
    gap = (await fetch_page(url, "a", last_event_id="mine")).gap
    assert gap is not None
    assert gap.reason == "unknown"


async def test_a_deleted_event_is_in_no_page(ask, server) -> None:
    event_id = server.publish("a", "gone")
    assert data_of((await ask("GET", "/events?topic=a&wait=0&since=earliest")).json) == ["gone"]
    await server.delete_event("a", event_id)
    assert data_of((await ask("GET", "/events?topic=a&wait=0&since=earliest")).json) == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("wait=", "wait"),
        ("wait=61s", "wait"),
        ("wait=-1s", "wait"),
        ("wait=1e99s", "wait"),
        ("wait=soon", "wait"),
        ("wait=0&wait=0", "wait"),
        ("wait=0&last_each=1", "last_each"),
        ("wait=0&deleted=true", "deleted"),
    ],
)
async def test_a_poll_that_can_not_be_is_refused(ask, query, field) -> None:
    answer = await ask("GET", f"/events?topic=a&{query}")
    assert (answer.status, answer.field) == (400, field)


async def test_a_connection_is_kept_for_the_next_poll(server) -> None:
    async with connected(server) as raw:
        for n in range(3):
            server.publish("a", str(n))
            await raw.send(get(f"/events?topic=a&wait=0&last=1&n={n}"))
            answer = await raw.answer()
            assert data_of(answer.json) == [str(n)]


async def test_polls_of_clients_that_are_gone_leave_nothing(server) -> None:
    polls = server._worker._hub.streams.polls
    poll = get("/events?topic=a&wait=30s")
    async with connected(server) as raw:
        await raw.send(poll)
        await until(lambda: polls.waiting == 1)
        for _ in range(20):
            async with connected(server) as other:
                await other.send(poll)
                await until(lambda: polls.waiting == 2)
                other.reset()
            await until(lambda: polls.waiting == 1)
        (group,) = polls._groups.values()
        assert len(group.polls) == 1
        server.publish("a", "x")
        assert data_of((await raw.answer()).json) == ["x"]
    async with connected(server) as last:
        await last.send(poll)
        await until(lambda: polls.waiting == 1)
        last.reset()
    await until(lambda: polls.waiting == 0)
    assert not polls._groups
    assert not len(server._worker._hub.channels)
    # Their topics are not kept until the time at which they would have been answered.
    kept = [poll for due in polls._deadlines.values() for poll in due]
    assert not any(hasattr(poll, "group") for poll in kept)


async def test_polls_that_ended_without_an_event_take_no_memory(ask, server) -> None:
    polls = server._worker._hub.streams.polls
    async with connected(server) as raw:
        await raw.send(get("/events?topic=a&wait=30s"))
        await until(lambda: polls.waiting == 1)
        for _ in range(3):
            answer = await ask("GET", "/events?topic=a&wait=10ms")
            assert data_of(answer.json) == []
        (group,) = polls._groups.values()
        assert len(group.polls) == 1


async def test_equal_answers_of_clients_that_do_not_read_take_memory_once(server) -> None:
    server.publish("a", "x" * 900_000)
    unsent = server._worker.frontend._acceptors[0].context.unsent
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(5):
            raw = await stack.enter_async_context(narrow(server))
            await raw.send(get("/events?topic=a&wait=0&last=1"))
        await until(lambda: len(unsent._held) == 5)
        assert 900_000 < unsent.bytes < 1_000_000
        assert data_of((await raw.answer()).json) == ["x" * 900_000]
        assert len(unsent._held) == 4
    await until(lambda: not unsent._held)
    assert (unsent.bytes, len(unsent._uses)) == (0, 0)
