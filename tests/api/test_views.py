"""What `GET /events` can ask for about the events that it is sent."""

import json
from pathlib import Path

import pytest

from tests.http.conftest import Start
from tests.http.raw import connected, get

BAD = {
    "envelope=": ("envelope", "json or none"),
    "envelope=xml": ("envelope", "json or none"),
    "envelope=json&envelope=json": ("envelope", "once"),
    "event=": ("event", "1 to 256 bytes"),
    "event=a,,b": ("event", "1 to 256 bytes"),
    "event=" + "x" * 257: ("event", "1 to 256 bytes"),
    "event=a%0Ab": ("event", "CR, LF or NUL"),
    "event=%00": ("event", "CR, LF or NUL"),
    "event=fastsse.gap": ("event", "begin with fastsse."),
    "event=" + ",".join(map(str, range(65))): ("event", "at most 64"),
    "event=a&event=b": ("event", "once"),
    "filter=": ("filter", "Expected a value at character 1"),
    "filter=data.price+%3E%3E+5": ("filter", "at character 13: data.price >\u27f6> 5"),
    "filter=topic+%3C+%22z%22": ("filter", "topic has no order: < can't compare it at character 7"),
    "filter=" + "!" * 2049: ("filter", "More than 2048 bytes"),
    "filter=true&filter=true": ("filter", "once"),
    "max_rate=": ("max_rate", "0.1 to 100"),
    "max_rate=0": ("max_rate", "0.1 to 100"),
    "max_rate=101": ("max_rate", "0.1 to 100"),
    "max_rate=-1": ("max_rate", "0.1 to 100"),
    "max_rate=1e2": ("max_rate", "0.1 to 100"),
    "max_rate=nan": ("max_rate", "0.1 to 100"),
    "max_rate=" + "9" * 400: ("max_rate", "0.1 to 100"),
    "max_rate=1&max_rate=2": ("max_rate", "once"),
    "until=,": ("until", "1 to 256 bytes"),
    "until=fastsse.end": ("until", "begin with fastsse."),
    "until_data=" + "x" * 1025: ("until_data", "at most 1024 bytes"),
    "until_data=a&until_data=b": ("until_data", "once"),
}


@pytest.mark.parametrize("query", BAD)
async def test_invalid_view_is_refused_with_its_parameter(server, ask, query: str) -> None:
    field, detail = BAD[query]
    answer = await ask("GET", f"/events?topic=a&{query}")
    assert (answer.status, answer.field) == (400, field)
    assert detail in answer.json["detail"]


async def test_only_the_types_that_are_named_are_sent(server) -> None:
    async with connected(server) as raw:
        await raw.send(get("/events?topic=a&event=tick,%C3%A9,message"))
        stream = await raw.stream()
        await stream.opening()
        for event in ("tick", "tock", "é", None):
            server.publish("a", str(event), event=event)
        assert [(await stream.next()).data for _ in range(3)] == ["tick", "é", "None"]


async def test_envelope_is_the_default_of_the_option_and_of_rules(start: Start) -> None:
    server = await start(
        envelope="json", topics=[{"match": "plain/*", "envelope": "none"}, {"match": "*"}]
    )
    for path, is_wrapped in (
        ("topic=a", True),
        ("topic=a&envelope=none", False),
        ("topic=plain/a", False),
        ("topic=plain/{x}", False),
        ("topic=plain/a&envelope=json", True),
        ("topic=*", True),
    ):
        async with connected(server) as raw:
            await raw.send(get(f"/events?{path}"))
            stream = await raw.stream()
            await stream.opening()
            server.publish(["a", "plain/a"], {"n": 1})
            told = json.loads((await stream.next()).data)
            assert told.get("data", told) == {"n": 1}
            assert ("topic" in told) is is_wrapped, path


async def test_rate_sends_the_newest_of_each_topic_and_the_place_resumes(server) -> None:
    async with connected(server) as raw:
        await raw.send(get("/events?topic=a&topic=b&max_rate=4&envelope=json"))
        stream = await raw.stream()
        await stream.opening()
        for n in range(50):
            server.publish("ab"[n % 2], {"n": n})
        told: dict[str, int] = {}
        while told != {"a": 48, "b": 49}:
            one = json.loads((await stream.next()).data)
            told[one["topic"]] = one["data"]["n"]
        assert len(stream.parsed.events) <= 6
        place = stream.parsed.last_event_id
    server.publish("a", {"n": 50})
    async with connected(server) as raw:
        await raw.send(get("/events?topic=a&topic=b&max_rate=4", f"Last-Event-ID: {place}"))
        assert (await (await raw.stream()).next()).data == '{"n":50}'


async def test_filter_over_the_bound_is_refused_in_band(start: Start) -> None:
    server = await start(max_topic_filters=1)
    async with connected(server) as first, connected(server) as second:
        await first.send(get("/events?topic=a&filter=data.n%3E1"))
        stream = await first.stream()
        await stream.opening()
        await second.send(get("/events?topic=a&filter=data.n%3E2"))
        refused = await (await second.stream()).next()
        assert (refused.type, json.loads(refused.data)["reason"]) == ("fastsse.refused", "filters")
        server.publish("a", {"n": 2})
        assert (await stream.next()).data == '{"n":2}'


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_return_with_the_id_of_the_end_is_204(
    start: Start, store: str, tmp_path: Path
) -> None:
    server = await start(store="memory" if store == "memory" else f"sqlite:{tmp_path}/h.db")
    await server.publish_later("run/1", "token")
    own = await server.publish_later("run/1", "[DONE]", id="end-1")
    end = await server.publish_later("run/1", {"ok": True}, event="done")
    for query, ids in (("until_data=[DONE]", [own]), ("until=done", [end])):
        async with connected(server) as raw:
            await raw.send(get(f"/events?topic=run/1&since=earliest&{query}"))
            stream = await raw.stream()
            await stream.to_end()
            assert not stream.was_cut
            assert stream.parsed.last_event_id == ids[0]
        for header in ids:
            async with connected(server) as raw:
                await raw.send(get(f"/events?topic=run/1&{query}", f"Last-Event-ID: {header}"))
                assert (await raw.answer()).status == 204
        # Of another topic, and of another end, it says nothing.
        for other in (f"topic=run/2&{query}", "topic=run/1&until=other"):
            async with connected(server) as raw:
                await raw.send(get(f"/events?{other}", f"Last-Event-ID: {ids[0]}"))
                await raw.stream()


async def test_gap_comes_before_the_events_of_a_stream_that_ends_at_once(start: Start) -> None:
    server = await start(history_events=2)
    first = await server.publish_later("run/1", "0")
    await server.publish_later("run/1", "1")
    await server.publish_later("run/1", "2")
    await server.publish_later("run/1", "3", event="done")
    async with connected(server) as raw:
        await raw.send(get("/events?topic=run/1&until=done", f"Last-Event-ID: {first}"))
        stream = await raw.stream()
        await stream.to_end()
    assert [one.type for one in stream.parsed.events] == ["fastsse.gap", "message", "done"]
    assert b"retry: " in stream.body


async def test_return_after_an_end_that_only_the_store_has_is_204(
    start: Start, tmp_path: Path
) -> None:
    options = {"store": f"sqlite:{tmp_path}/h.db", "history_total": "1KiB", "max_lag": "1KiB"}
    server = await start(**options)
    end = await server.publish_later("run/1", "x" * 500, event="done", id="e")
    for _ in range(20):
        await server.publish_later("other", "x" * 500)
    for header in (end, "e"):
        async with connected(server) as raw:
            await raw.send(get("/events?topic=run/1&until=done", f"Last-Event-ID: {header}"))
            assert (await raw.answer()).status == 204
