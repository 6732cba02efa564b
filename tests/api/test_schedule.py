"""Delayed publishes: `delay`, `deliver_at`, and `/schedule`."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence

import pytest

from fastsse._records import pack_events
from fastsse.control.schedule import PAGE, ScheduleCounts, ScheduleService
from fastsse.control.service import MemoryControlStore
from fastsse.errors import FastsseError, InvalidEvent, NotKept, TopicEnded
from fastsse.events import Event
from tests.auth.minting import SECRET, grants, mint
from tests.http.raw import connected, get, request, until

JSON = "Content-Type: application/json"
ID = "0" * 32


async def keep(ask, query: str, body: bytes = b"x", *headers: str) -> dict:
    answer = await ask("POST", f"/events?{query}", *headers, body=body)
    assert answer.status == 202, answer.json
    return answer.json


async def listed(ask) -> dict:
    return (await ask("GET", "/schedule")).json


async def test_event_is_published_when_it_is_due_and_not_before(ask, server) -> None:
    async with connected(server) as raw:
        await raw.send(get("/events?topic=a&envelope=json"))
        stream = await raw.stream()
        before_ms = int(time.time() * 1000)
        late = await keep(ask, "topic=a&delay=200ms&event=tick&id=own&meta=%7B%22n%22:1%7D")
        at_ms = before_ms + 50
        body = json.dumps({"topic": "a", "data": {"n": 1}, "deliver_at": at_ms}).encode()
        soon = await ask("POST", "/events", JSON, body=body)
        assert soon.json["deliver_at"] == at_ms
        assert before_ms + 200 <= late["deliver_at"] <= time.time() * 1000 + 200
        server.publish("a", "now")
        found = []
        for _ in range(3):
            one = json.loads((await stream.next()).data)
            found.append((one["data"], one["event"], one["id"], one["meta"]))
            if one["data"] == "x":
                assert time.time() * 1000 >= late["deliver_at"]
        assert found[0][0] == "now"
        assert found[1][0] == {"n": 1}
        assert found[2] == ("x", "tick", "own", {"n": 1})
    assert await listed(ask) == {"scheduled": [], "dead": [], "next": None}


async def test_time_in_the_past_is_now_and_times_are_read_as_rfc_3339(ask, server) -> None:
    async with connected(server) as raw:
        await raw.send(get("/events?topic=a"))
        stream = await raw.stream()
        for text in ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00%2B01:00", "1", "0"):
            await keep(ask, f"topic=a&deliver_at={text}")
            assert (await stream.next()).data == "x"
        # Digits that are a date too: 28 January 1796, 14:46.
        assert (await keep(ask, "topic=a&deliver_at=1796012841446"))["deliver_at"] == 1796012841446
        answer = await keep(ask, "topic=a&deliver_at=2026-12-01T00:00:00.250Z")
        assert answer["deliver_at"] == 1796083200250


async def test_waiting_events_are_listed_in_order_by_pages_and_cancelled(ask, server) -> None:
    ids = [
        (await keep(ask, f"topic=t/{n}&delay={1000 - n}s"))["scheduled"] for n in range(201, -1, -1)
    ]
    first = await listed(ask)
    assert [one["id"] for one in first["scheduled"]] == ids[:200]
    assert first["scheduled"][0]["topics"] == ["t/201"]
    rest = (await ask("GET", f"/schedule?after={first['next']}")).json
    assert [one["id"] for one in rest["scheduled"]] == ids[200:]
    assert rest["next"] is None
    answer = await ask("DELETE", f"/schedule?id={ids[0]}")
    assert (answer.status, answer.json) == (200, {"cancelled": ids[0]})
    for path in (f"/schedule?id={ids[0]}", f"/schedule?id={ID}", "/schedule?id=x"):
        assert (await ask("DELETE", path)).status == 404
    counters = await stats(server)
    assert (counters["schedule_events"], counters["schedule_cancelled"]) == (201, 1)
    assert counters["schedule_bytes"] > 201 * 100


async def stats(server) -> dict:
    services = server._worker.frontend.delayed.schedule._control.services
    return services["schedule"]._counts


async def test_cancelled_event_is_never_published(ask, server) -> None:
    kept = await keep(ask, "topic=a&delay=100ms")
    assert (await ask("DELETE", f"/schedule?id={kept['scheduled']}")).status == 200
    async with connected(server) as raw:
        await raw.send(get("/events?topic=a"))
        stream = await raw.stream()
        await keep(ask, "topic=a&delay=250ms", b"later")
        assert (await stream.next()).data == "later"


async def test_two_nodes_that_are_refused_at_the_same_time_write_one_dead_letter() -> None:
    store, refused = MemoryControlStore(), []
    now_s = 1_800_000_000.0

    def append(events: Sequence[Event], done: Callable[[FastsseError], None]) -> None:
        refused.append(done)

    def node() -> ScheduleService:
        counts = ScheduleCounts()
        return ScheduleService(print, store, print, append, counts, now_s=lambda: now_s)

    one = node()
    due = round(now_s * 1000).to_bytes(8)
    request = b"a" + due + bytes([255] * 16) + bytes(32) + pack_events([Event("a", "x")])
    one.on_request(0, request, lambda answer: None)
    nodes = one, node()
    await until(lambda: len(refused) == 2)
    for done in refused:
        now_s += 1
        done(TopicEnded("a"))
    assert len(store.items("d/")) == 1
    for each in nodes:
        each.close()


async def test_topic_that_has_ended_by_then_makes_a_dead_letter(ask, server) -> None:
    kept = await keep(ask, "topic=a&delay=50ms")
    assert (await ask("POST", "/topics/end?topic=a")).status == 200
    counts = await stats(server)
    await until(lambda: counts["schedule_dead"] == 1)
    found = await listed(ask)
    (letter,) = found["dead"]
    assert letter == {
        "id": kept["scheduled"],
        "topics": ["a"],
        "deliver_at": kept["deliver_at"],
        "reason": "The topic a has ended; nothing was published.",
    }
    assert found["scheduled"] == []
    assert (await stats(server))["schedule_dead"] == 1


async def test_end_comes_with_its_event(ask, server) -> None:
    async with connected(server) as raw:
        await raw.send(get("/events?topic=a"))
        stream = await raw.stream()
        await keep(ask, "topic=a&delay=20ms&end=true", b"last")
        assert (await stream.next()).data == "last"
        assert (await stream.next()).type == "fastsse.end"


async def test_repeat_with_a_key_waits_once_and_is_published_once(ask, server) -> None:
    first = await keep(ask, "topic=a&delay=60ms&key=k")
    assert (await keep(ask, "topic=a&delay=60ms&key=k"))["scheduled"] == first["scheduled"]
    headers = ("Idempotency-Key: r",)
    second = await keep(ask, "topic=a&delay=60ms", b"y", *headers)
    assert (await keep(ask, "topic=a&delay=60ms", b"y", *headers))["scheduled"] == (
        second["scheduled"]
    )
    other = await ask("POST", "/events?topic=a&delay=60ms", *headers, body=b"z")
    assert other.status == 422
    async with connected(server) as raw:
        await raw.send(get("/events?topic=a"))
        stream = await raw.stream()
        found = {(await stream.next()).data for _ in range(2)}
        # After its publish the key is known as that of any event.
        await keep(ask, "topic=a&delay=0&key=k")
        await keep(ask, "topic=a&delay=20ms", b"end")
        assert ((await stream.next()).data, found) == ("end", {"x", "y"})


async def test_a_repeat_is_answered_with_the_time_of_the_first_request(ask, server) -> None:
    for query, headers in (("&key=k", ()), ("", ("Idempotency-Key: r",))):
        first = await keep(ask, f"topic=a&delay=1h{query}", b"x", *headers)
        await asyncio.sleep(0.02)
        assert await keep(ask, f"topic=a&delay=1h{query}", b"x", *headers) == first
    # A key of an event says nothing of the rest of the request.
    assert await keep(ask, "topic=a&delay=2h&key=k") == await keep(ask, "topic=a&delay=1h&key=k")


async def test_a_key_that_another_request_used_meanwhile_makes_a_dead_letter(ask, server) -> None:
    header = "Idempotency-Key: r"
    await ask("POST", "/events?topic=a", header, body=b"now")
    await keep(ask, "topic=a&delay=20ms", b"later", header)
    dead: list = []
    async with asyncio.timeout(20):
        while not dead:
            await asyncio.sleep(0.01)
            dead = (await listed(ask))["dead"]
    assert "Idempotency-Key" in dead[0]["reason"]
    page = (await ask("GET", "/events?topic=a&wait=0&since=earliest")).json
    assert [event["data"] for event in page["events"]] == ["now"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("delay=-1s", "delay"),
        ("delay=366d", "delay"),
        ("delay=x", "delay"),
        ("delay=nan", "delay"),
        ("delay=1s&deliver_at=1", "delay"),
        ("delay=1s&delay=1s", "delay"),
        ("delay=1s&expect=earliest", "expect"),
        ("delay=1s&receipt=true", "receipt"),
        ("deliver_at=tomorrow", "deliver_at"),
        ("deliver_at=2026-12-01", "deliver_at"),
        ("deliver_at=2026-12-01T00:00:00", "deliver_at"),
        ("deliver_at=-5", "deliver_at"),
        ("deliver_at=99999999999999", "deliver_at"),
        ("deliver_at=1e400", "deliver_at"),
    ],
)
async def test_mistakes_are_named(ask, query: str, field: str) -> None:
    answer = await ask("POST", f"/events?topic=a&{query}", body=b"x")
    assert (answer.status, answer.field) == (400, field), answer.json


@pytest.mark.parametrize("value", [True, [], {}, -1, 1e300, "soon"])
@pytest.mark.parametrize("name", ["delay", "deliver_at"])
async def test_members_of_the_wrong_kind_are_named(ask, name: str, value: object) -> None:
    body = json.dumps({"topic": "a", "data": 1, name: value}).encode()
    answer = await ask("POST", "/events", JSON, body=body)
    assert (answer.status, answer.field) == (400, name)


async def test_batches_streams_and_preconditions_can_not_wait(ask) -> None:
    ndjson = "Content-Type: application/x-ndjson"
    lines = b'{"topic": "a", "data": 1, "delay": 1}\n{"topic": "a", "data": 2}'
    for path in ("/events", "/events?stream=true"):
        assert (await ask("POST", path, ndjson, body=lines)).status == 400
    answer = await ask("POST", "/events?topic=a&delay=1s", "If-Match: earliest", body=b"x")
    assert (answer.status, answer.field) == (400, "If-Match")
    for path, field in (("/schedule?x=1", "x"), ("/schedule?after=1", "after")):
        answer = await ask("GET", path)
        assert (answer.status, answer.field) == (400, field)
    assert (await ask("DELETE", "/schedule")).status == 400


async def test_full_schedule_is_507_by_count_and_bytes(start) -> None:
    server = await start(max_scheduled=1, schedule_total="10KB", max_body="4MiB")
    async with connected(server) as raw:
        statuses = []
        for body in (b"x" * 11_000, b"x" * 2_000_000, b"x", b"x"):
            await raw.send(request("POST", "/events?topic=a&delay=1h", body=body))
            answer = await raw.answer()
            statuses.append(answer.status)
        assert statuses == [507, 507, 202, 507]
        assert answer.json["reason"] == "schedule"


async def test_publishers_see_and_cancel_only_what_they_may_publish(start) -> None:
    server = await start(jwt_key=SECRET)
    tokens = {
        topic: f"Authorization: Bearer {mint(grants(publish=[topic])).decode()}"
        for topic in ("a", "b")
    }
    async with connected(server) as raw:
        await raw.send(request("POST", "/events?topic=a&delay=1h", tokens["a"], body=b"x"))
        kept = (await raw.answer()).json["scheduled"]
        await raw.send(request("POST", "/events?topic=a&delay=1h", tokens["b"], body=b"x"))
        assert (await raw.answer()).status == 403
        for topic, count, status in (("b", 0, 404), ("a", 1, 200)):
            await raw.send(request("GET", "/schedule", tokens[topic]))
            assert len((await raw.answer()).json["scheduled"]) == count
            await raw.send(request("DELETE", f"/schedule?id={kept}", tokens[topic]))
            assert (await raw.answer()).status == status
        await raw.send(request("GET", "/schedule"))
        assert (await raw.answer()).status == 401


async def test_rules_of_topics_hold_when_it_is_kept(start) -> None:
    server = await start(topics=[{"match": "a", "types": ["tick"]}])
    async with connected(server) as raw:
        await raw.send(request("POST", "/events?topic=a&delay=1h&event=other", body=b"x"))
        assert (await raw.answer()).status == 400


async def test_server_schedules_and_cancels(server) -> None:
    kept = await server.schedule("a", {"n": 1}, delay="1h")
    others = [await server.schedule("b", "x", delay=7_200 + n) for n in range(PAGE + 1)]
    listed = await server.list_scheduled()
    assert [one.id for one in listed] == [kept, *others]
    assert (listed[0].topics, listed[0].reason) == (("a",), "")
    await server.cancel(kept)
    for scheduled in (kept, "x"):
        with pytest.raises(NotKept):
            await server.cancel(scheduled)
    with pytest.raises(InvalidEvent):
        await server.schedule("a", "x")
    async with connected(server) as raw:
        await raw.send(get("/events?topic=a"))
        stream = await raw.stream()
        await server.schedule("a", "soon", delay=0.02)
        assert (await stream.next()).data == "soon"


async def test_one_timer_serves_all_events(ask, server) -> None:
    service = server._worker.frontend.delayed.schedule._control.services["schedule"]
    for n in range(50):
        await keep(ask, f"topic=a&delay={100 - n}s")
    timer = service._timer
    assert timer is not None
    assert timer.when() - asyncio.get_running_loop().time() < 51.5
    await keep(ask, "topic=a&delay=0")
    await until(lambda: len(service._order) == 50)


async def test_delayed_publishes_have_an_access_line(start, caplog) -> None:
    caplog.set_level("DEBUG", "fastsse")
    server = await start(log_level="debug", access_lines=100, max_scheduled=1)
    async with connected(server) as raw:
        for status in (202, 507):
            await raw.send(request("POST", "/events?topic=a&delay=1h", body=b"xy"))
            assert (await raw.answer()).status == status
    lines = [record for record in caplog.records if record.message == "Published."]
    assert [(one.events, one.bytes, one.status) for one in lines] == [(1, 2, 202), (1, 2, 507)]
