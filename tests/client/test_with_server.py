"""Client and server together: what one publishes the other receives, across every kind of cut."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from fastsse.client import (
    Publisher,
    Receipt,
    Refused,
    StreamState,
    StreamView,
    Unreachable,
    fetch_page,
    listen,
)
from fastsse.config import Config
from fastsse.server import Server
from tests.auth.minting import SECRET, grants, mint
from tests.loopback import Relay

HARD_TOPICS = ["a b", "a+b", "a&topic=b", "é世🙂", "100%", "a/b?c#d", "*x", "%41"]


def config(**options: object) -> Config:
    return Config(**{"port": 0, "drain": 0, "retry": "10ms", **options})


@pytest.mark.parametrize("topic", HARD_TOPICS)
async def test_any_topic_goes_through_both_ways_of_publishing(topic: str) -> None:
    async with Server(config()) as server:
        url = server.addresses[0]
        async with Publisher(url) as publisher, listen(url, topic) as events:
            first = await publisher.publish(topic, "one", event="é t", id="i d")
            second = await publisher.publish_batch([{"topic": topic, "data": {"n": 1}}])
            received = [await anext(events), await anext(events)]
    assert [(event.data, event.event) for event in received] == [
        ("one", "é t"),
        ('{"n":1}', "message"),
    ]
    assert [event.id for event in received] == [first.id, second.last] == ["i d", second.first]


async def test_a_private_event_reaches_only_a_token_that_grants_it() -> None:
    claims = grants(publish=["t"], subscribe=["t"])
    granted, other = mint(claims).decode(), mint(grants(subscribe=["other"])).decode()
    async with Server(config(jwt_key=SECRET)) as server:
        url = server.addresses[0]
        async with (
            Publisher(url, token=granted) as publisher,
            listen(url, "t", token=granted) as granted_events,
            listen(url, "t", token=other) as other_events,
        ):
            await publisher.publish("t", "secret", private=True)
            await publisher.publish_batch([{"topic": "t", "data": "also", "private": True}])
            await publisher.publish("t", "public")
            received = [(await anext(granted_events)).data for _ in range(3)]
            assert (await anext(other_events)).data == "public"
    assert received == ["secret", "also", "public"]


async def test_lines_nulls_and_marks_survive_the_journey() -> None:
    data = "\ufeffa\nb\n\n  c\u2028\x00: d\n"
    async with Server(config()) as server:
        url = server.addresses[0]
        async with Publisher(url) as publisher, listen(url, "t") as events:
            await publisher.publish("t", data)
            assert (await anext(events)).data == data


async def test_receipt_says_how_many_were_known_by_their_keys() -> None:
    async with Server(config()) as server, Publisher(server.addresses[0]) as publisher:
        first = await publisher.publish("t", "once", key="k")
        again = await publisher.publish("t", "once", key="k")
        assert (first.duplicates, again.duplicates, again.id) == (0, 1, first.id)
        events = [{"topic": "t", "data": "x", "key": key} for key in ("k", "l", "m", "l")]
        assert (await publisher.publish_batch(events)).duplicates == 2
        assert (await publisher.publish_many(events)).duplicates == 4


async def test_batch_is_received_in_order() -> None:
    async with Server(config()) as server:
        url = server.addresses[0]
        async with Publisher(url) as publisher, listen(url, "t") as events:
            sent = [{"topic": "t", "data": f"{number}"} for number in range(500)]
            receipt = await publisher.publish_batch(sent)
            received = [await anext(events) for _ in sent]
    assert [event.data for event in received] == [f"{number}" for number in range(500)]
    assert receipt == Receipt(500, received[0].id, received[-1].id)


async def counted(count: int) -> AsyncIterator[dict[str, str]]:
    for number in range(count):
        yield {"topic": "t", "data": f"{number}"}


@pytest.mark.parametrize("is_slow", [False, True])
async def test_many_events_are_published_in_order_in_batches(is_slow: bool) -> None:
    count = 50 if is_slow else 12_000
    batches: list[Receipt] = []
    async with Server(config(history_events=20_000)) as server:
        url = server.addresses[0]
        async with Publisher(url) as publisher, listen(url, "t") as events:
            sent = counted(count) if is_slow else [one async for one in counted(count)]
            receipt = await publisher.publish_many(sent, on_accepted=batches.append)
            received = [await anext(events) for _ in range(count)]
    assert [event.data for event in received] == [f"{number}" for number in range(count)]
    assert receipt == Receipt(count, received[0].id, received[-1].id)
    assert sum(one.count for one in batches) == count
    assert all(one.count <= 5_000 for one in batches)
    assert len(batches) < count / 2


async def test_no_events_are_no_request() -> None:
    async with Publisher("http://127.0.0.1:1") as publisher:
        assert await publisher.publish_many([]) == Receipt(0, "", "")


async def test_a_refusal_among_many_says_what_was_published_and_which_is_wrong() -> None:
    events: list[dict[str, str]] = [{"topic": "t", "data": "x"} for _ in range(900)]
    events[700]["topic"] = "$reserved"
    async with Server(config()) as server, Publisher(server.addresses[0]) as publisher:
        with pytest.raises(Refused) as refused:
            await publisher.publish_many(events)
    assert refused.value.line == 701
    assert 0 <= refused.value.published <= 700


async def test_what_the_source_raises_comes_after_the_events_before_it() -> None:
    accepted: list[int] = []

    async def broken() -> AsyncIterator[dict[str, object]]:
        yield {"topic": "t", "data": "x"}
        yield {"topic": "t", "data": object()}

    async with Server(config()) as server, Publisher(server.addresses[0]) as publisher:
        with pytest.raises(TypeError):
            await publisher.publish_many(
                broken(), on_accepted=lambda receipt: accepted.append(receipt.count)
            )
    assert accepted == [1]


async def test_a_cancelled_publisher_of_many_ends_its_source() -> None:
    ended = asyncio.Event()

    async def endless() -> AsyncIterator[dict[str, str]]:
        try:
            while True:
                yield {"topic": "t", "data": "x"}
                await asyncio.sleep(0)
        finally:
            ended.set()

    async with Server(config()) as server, Publisher(server.addresses[0]) as publisher:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await publisher.publish_many(endless())
        await asyncio.wait_for(ended.wait(), 5)


async def test_restarted_listener_goes_on_after_its_last_event() -> None:
    async with Server(config()) as server:
        url = server.addresses[0]
        for number in range(5):
            server.publish("t", f"{number}")
        async with listen(url, "t", last_event_id="earliest") as events:
            assert [(await anext(events)).data for _ in range(2)] == ["0", "1"]
            seen = events.last_event_id
        async with listen(url, "t", last_event_id=seen) as events:
            assert [(await anext(events)).data for _ in range(3)] == ["2", "3", "4"]


async def test_start_can_be_chosen() -> None:
    async with Server(config()) as server:
        url = server.addresses[0]
        for number in range(5):
            server.publish("t", f"{number}")
        async with listen(url, "t", last=2) as events:
            assert (await anext(events)).data == "3"
        async with listen(url, "t", since="1h") as events:
            # An hour ago this server was not there yet: it lost nothing of that time.
            assert (await anext(events)).data == "0"


async def test_cut_streams_lose_and_repeat_nothing_while_events_flow() -> None:
    class Cuts:
        """Ends the server's side of every connection now and then."""

        def __init__(self) -> None:
            self.opened = 0

        def __call__(self, state: StreamState) -> None:
            self.opened += state.kind == "open"

    cuts = Cuts()
    wanted = [f"{number}" for number in range(300)]
    async with (
        Server(config()) as server,
        Relay(server.addresses[0]) as relay,
        listen(relay.url, "t", on_state=cuts) as events,
    ):
        received = []
        for number in wanted:
            server.publish("t", number)
            if int(number) % 20 == 7:
                relay.cut()
            if int(number) % 3 == 0:
                received.append((await anext(events)).data)
        while len(received) < len(wanted):
            received.append((await anext(events)).data)
    assert received == wanted
    assert cuts.opened >= 3


async def test_lost_history_is_reported_as_a_gap() -> None:
    async with Server(config(history_events=2)) as server:
        url = server.addresses[0]
        first = server.publish("t", "0")
        for number in range(1, 6):
            server.publish("t", f"{number}")
        async with listen(url, "t", last_event_id=first) as events:
            gap = (await anext(events)).gap
            assert gap is not None
            assert (gap.reason, gap.requested) == ("evicted", first)
            assert [(await anext(events)).data for _ in range(2)] == ["4", "5"]


async def test_refusals_carry_field_and_line() -> None:
    async with Server(config(publish_token="s3cret")) as server:
        url = server.addresses[0]
        async with Publisher(url) as publisher:
            with pytest.raises(Refused) as caught:
                await publisher.publish("t", "x")
            assert caught.value.status == 401
        async with Publisher(url, token="s3cret") as publisher:
            with pytest.raises(Refused) as caught:
                await publisher.publish_batch([{"topic": "t", "data": "x"}, {"topic": ""}])
            assert (caught.value.status, caught.value.line) == (400, 2)
            with pytest.raises(Refused) as caught:
                await publisher.publish("$own", "x")
            assert (caught.value.status, caught.value.field) == (400, "topic")
        with pytest.raises(Refused):
            async with listen(url, []):
                pytest.fail("the block must not run")


async def test_drained_server_is_come_back_to() -> None:
    states: list[StreamState] = []

    async def wait(wait_s: float) -> None:
        raise asyncio.CancelledError

    async with Server(config()) as server:
        events = listen(server.addresses[0], "t", on_state=states.append, sleep=wait)
        await events.__aenter__()
        server.publish("t", "x")
        assert (await anext(events)).data == "x"
    with pytest.raises(asyncio.CancelledError):
        await anext(events)
    await events.aclose()
    assert [state.kind for state in states] == ["open", "waiting"]
    # The farewell had a time of its own.
    assert states[1].wait_s >= 0.01


async def test_stopped_server_is_unreachable() -> None:
    async with Server(config()) as server:
        url = server.addresses[0]
    async with Publisher(url, patience_s=0) as publisher:
        with pytest.raises(Unreachable):
            await publisher.publish("t", "x")


async def test_stream_of_events_is_published_as_they_come() -> None:
    async with (
        Server(Config(port=0, drain=0)) as server,
        listen(server.addresses[0], "t") as stream,
        Publisher(server.addresses[0]) as publisher,
    ):
        seen: list[str] = []

        async def events() -> AsyncIterator[dict[str, object]]:
            for number in range(3):
                yield {"topic": "t", "data": number, "meta": {"n": number}}
                seen.append((await anext(stream)).data)

        receipt = await publisher.publish_stream(events())
        assert (receipt.count, seen) == (3, ["0", "1", "2"])

        async def wrong() -> AsyncIterator[dict[str, object]]:
            yield {"topic": "t", "data": 1}
            yield {"topic": "", "data": 2}

        with pytest.raises(Refused) as caught:
            await publisher.publish_stream(wrong())
        assert (caught.value.status, caught.value.line, caught.value.count) == (400, 2, 1)


async def test_relay_publishes_the_events_of_a_stream() -> None:
    async with (
        Server(Config(port=0, drain=0)) as server,
        listen(server.addresses[0], "run/1") as stream,
        Publisher(server.addresses[0]) as publisher,
    ):

        async def upstream() -> AsyncIterator[bytes]:
            yield b": hi\n\nid: x\nda"
            yield b"ta: 1\n\nevent: end\ndata: 2\n\n"

        receipt = await publisher.relay("run/1", upstream(), event="token", own_ids=True)
        first, second = await anext(stream), await anext(stream)
        assert (first.id, first.event, first.data) == ("x", "token", "1")
        assert (second.event, second.data) == ("end", "2")
        assert (receipt.count, receipt.first, receipt.last) == (2, "x", second.id)


@pytest.mark.parametrize("envelope", [False, True])
@pytest.mark.parametrize("ending", [{"until": ("done",)}, {"until_data": "[DONE]"}])
async def test_a_stream_that_met_its_end_is_not_opened_again(
    envelope: bool, ending: dict[str, object]
) -> None:
    states: list[str] = []
    view = StreamView(envelope=envelope, **ending)  # type: ignore[arg-type]
    async with Server(config()) as server, Publisher(server.addresses[0]) as publisher:
        await publisher.publish("t", "one")
        await publisher.publish("t", "[DONE]", event="done")
        url = server.addresses[0]
        stream = listen(url, "t", last=2, view=view, on_state=lambda one: states.append(one.kind))
        assert len([event async for event in stream]) == 2
    assert states == ["open"]


SYMBOLS = [f"prices/{n:03}" for n in range(300)]


@pytest.mark.parametrize("topics", [SYMBOLS, ["x" * 900 + str(n) for n in range(9)]])
async def test_long_selection_is_stored_as_a_feed_and_again_when_it_is_lost(topics: list) -> None:
    server = Server(config())
    async with server:
        url = server.addresses[0]
        for topic in topics:
            server.publish(topic, topic)
        async with listen(url, topics, last_each=1) as events:
            assert [(await anext(events)).data for _ in topics] == topics
            assert (await anext(events)).event == "fastsse.snapshot"
            port = server.port
            await server.close()
            # Another start, whose memory store has no feed.
            async with Server(config(port=port)) as again:
                found = [await anext(events)]
                again.publish(topics[0], "again")
                while found[-1].data != "again":
                    found.append(await anext(events))
                assert [one.gap.reason for one in found if one.gap is not None] == ["evicted"]
                counters = again._worker.frontend.counters()
                assert (counters["feeds_unknown"], counters["feeds_stored"]) == (1, 1)
    page = None
    async with Server(config()) as server:
        server.publish(topics[0], "one")
        page = await fetch_page(server.addresses[0], topics, last=1)
    assert [one.data for one in page.events] == ["one"]


async def test_server_without_feeds_gets_the_topics_in_the_url(monkeypatch) -> None:
    monkeypatch.setattr("fastsse.client.feeds.sibling_path", lambda url, path: "/nowhere")
    async with (
        Server(config(max_topics=300)) as server,
        listen(server.addresses[0], SYMBOLS) as events,
    ):
        server.publish(SYMBOLS[-1], "x")
        assert (await anext(events)).data == "x"


async def test_feed_that_has_no_room_is_tried_again_later() -> None:
    states: list[StreamState] = []
    waits: list[float] = []

    async def sleep(wait_s: float) -> None:
        waits.append(wait_s)

    async with Server(config(max_feeds=1)) as server:
        await server.store_feed(["other"])
        with pytest.raises(Refused, match="can't be stored or read now"):
            async with listen(
                server.addresses[0], SYMBOLS, tries=3, on_state=states.append, sleep=sleep
            ):
                pass
    assert len(waits) == 2
