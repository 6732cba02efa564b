"""Reconnection, history and liveness: statements R1 to R8 and T1 to T4."""

import asyncio
from urllib.parse import quote

import pytest

from fastsse.hub.channels import Channel
from fastsse.hub.resume.preamble import PendingStream, ReplayingStream, last_frames
from fastsse.server import Server
from fastsse.subscriptions import HEAD, MERCURE, Cursor, Subscription
from tests.http.conftest import Start
from tests.http.raw import connected, request
from tests.mercure.client import HUB, KEY, bearer, publish, subscribed, texts, update

LAST = "last-event-id"


async def test_R1_the_header_wins_over_the_query(hub: Server) -> None:
    ids = [await update(hub, "a", str(number)) for number in range(3)]
    query = f"topic=a&lastEventID={quote(ids[0])}"
    async with subscribed(hub, query, f"Last-Event-ID: {ids[1]}") as stream:
        assert await texts(stream, 1) == ["2"]
        assert stream.headers[LAST] == ids[1]
    async with subscribed(hub, query) as stream:
        assert await texts(stream, 2) == ["1", "2"]
        assert stream.headers[LAST] == ids[0]


async def test_R2_all_later_updates_come_in_order_and_then_live_ones(hub: Server) -> None:
    ids = [await update(hub, "ab"[number % 2], str(number)) for number in range(20)]
    async with subscribed(hub, "topic=a&topic=b", f"Last-Event-ID: {ids[4]}") as stream:
        await update(hub, "a", "live")
        assert await texts(stream, 16) == [*map(str, range(5, 20)), "live"]


async def test_R2_an_id_of_the_publishers_is_known_too(hub: Server) -> None:
    await update(hub, "a", "1", ("id", "mine"))
    await update(hub, "a", "2")
    async with subscribed(hub, "topic=a&lastEventID=mine") as stream:
        assert await texts(stream, 1) == ["2"]
        assert stream.headers[LAST] == "mine"


async def test_R3_earliest_asks_for_all_that_is_kept(hub: Server) -> None:
    for number in range(3):
        await update(hub, "a", str(number))
    async with subscribed(hub, "topic=a&lastEventID=earliest") as stream:
        assert await texts(stream, 3) == ["0", "1", "2"]
        assert stream.headers[LAST] == "earliest"


async def test_R4_without_a_cursor_there_is_no_header(hub: Server) -> None:
    await update(hub, "a")
    async with subscribed(hub, "topic=a") as stream:
        assert LAST not in stream.headers


@pytest.mark.parametrize(
    "unknown",
    [
        "urn:uuid:5e94c686-2c0b-4f9b-958c-92ccc3bbb4eb",
        "nothing",
        "1-1",
        "9999999999999-1",
        "x" * 5000,
        "-1",
        "99999999999999999999999999-1",
    ],
)
async def test_R5_an_unknown_id_is_answered_with_earliest_and_no_replay(
    start: Start, unknown: str
) -> None:
    hub = await start(jwt_key=KEY, anonymous=True, history_events=1)
    for number in range(3):
        await update(hub, "a", str(number))
    async with subscribed(hub, "topic=a", f"Last-Event-ID: {unknown}") as stream:
        assert stream.headers[LAST] == "earliest"
        await update(hub, "a", "live")
        assert (await texts(stream, 1))[0] in ("live", "2")


async def test_R5_ids_that_break_a_header_do_not_come_back_in_one(hub: Server) -> None:
    forged = quote("x\r\nSet-Cookie: a=b")
    async with subscribed(hub, f"topic=a&lastEventID={forged}") as stream:
        assert stream.headers[LAST] == "earliest"
        assert "set-cookie" not in stream.headers


async def test_R6_rights_are_judged_again_at_a_replay(hub: Server) -> None:
    first = await update(hub, "a", "0")
    hidden = await publish(hub, ("topic", "a"), ("data", "hidden"), ("private", "on"))
    await update(hub, "a", "1")
    by = bearer(subscribe=["a"])
    async with subscribed(hub, "topic=a", f"Last-Event-ID: {first}") as stream:
        assert await texts(stream, 1) == ["1"]
    async with subscribed(hub, "topic=a", by, f"Last-Event-ID: {first}") as stream:
        assert await texts(stream, 2) == ["hidden", "1"]
    assert hidden.status == 200


async def test_R6_an_id_that_may_not_be_read_is_as_unknown(hub: Server) -> None:
    await publish(hub, ("topic", "a"), ("id", "secret-1"), ("private", "on"))
    for own in ("secret-1", "never-was"):
        async with subscribed(hub, f"topic=a&lastEventID={own}") as stream:
            assert stream.headers[LAST] == "earliest"


async def test_R8_without_history_the_cursor_is_earliest(start: Start) -> None:
    hub = await start(jwt_key=KEY, anonymous=True, history_events=0)
    first = await update(hub, "a", "0")
    await update(hub, "a", "1")
    async with subscribed(hub, "topic=a", f"Last-Event-ID: {first}") as stream:
        assert stream.headers[LAST] == "earliest"
        await update(hub, "a", "live")
        assert await texts(stream, 1) == ["live"]


async def test_our_own_events_stay_off_this_path_unless_they_are_asked_for(
    start: Start,
) -> None:
    hub = await start(jwt_key=KEY, anonymous=True)
    await update(hub, "a")
    for query, first in (("", "live"), ("&fastsse=true", None)):
        async with subscribed(hub, "topic=a&lastEventID=unknown" + query) as stream:
            await update(hub, "a", "live")
            event = await stream.next()
            assert event.data == first if first else event.type == "fastsse.gap"


async def test_T1_an_idle_stream_is_sent_comments(start: Start) -> None:
    hub = await start(jwt_key=KEY, anonymous=True, heartbeat="20ms")
    async with subscribed(hub, "topic=a") as stream:
        while stream.body.count(b":\n") < 3:
            assert await stream.read()
        assert stream.body.strip(b":\n") == b""


async def test_T3_a_subscriber_that_does_not_read_is_cut_and_resumes(start: Start) -> None:
    hub = await start(
        jwt_key=KEY, anonymous=True, max_lag="64KiB", max_lag_time="1s", notsent_lowat="1KiB"
    )
    async with connected(hub) as raw:
        await raw.send(request("GET", f"{HUB}?topic=a"))
        await raw.head()
        while hub.stream_count:
            for _ in range(20):
                hub.publish("a", "x" * 60_000)
            await asyncio.sleep(0.01)


async def test_T4_a_stop_ends_streams_within_its_window(start: Start) -> None:
    hub = await start(jwt_key=KEY, anonymous=True)
    async with subscribed(hub, "topic=a") as stream:
        await hub.drain(0)
        await stream.to_end()
        assert b"retry: " in stream.body


@pytest.mark.parametrize("asked_for", ["urn:uuid:5e94c686-2c0b-4f9b-958c-92ccc3bbb4eb", "mine", ""])
async def test_R5_a_refused_subscriber_receives_the_id_that_it_sent(
    start: Start, asked_for: str
) -> None:
    hub = await start(jwt_key=KEY, anonymous=True, address_streams=1)
    async with subscribed(hub, "topic=a"), connected(hub) as raw, connected(hub) as known:
        lines = [f"Last-Event-ID: {asked_for}"] if asked_for else []
        # One whose request came with it, and one whose connection was there before.
        await raw.send(request("GET", f"{HUB}?topic=a", *lines))
        await known.send(request("GET", "/healthz"))
        assert (await known.answer()).status == 200
        await known.send(request("GET", f"{HUB}?topic=a", *lines))
        for one in (raw, known):
            status, headers = await one.head()
            assert (status, headers["content-type"]) == (200, "text/event-stream")
            assert headers.get(LAST, "") == asked_for
            assert (await one.rest()).startswith(b"retry: ")


@pytest.mark.parametrize(
    ("cursor", "named"),
    [
        (Cursor("after", "mine"), b"mine"),
        (Cursor("earliest"), b"earliest"),
        (HEAD, None),
    ],
)
def test_R5_a_subscriber_with_unreadable_history_receives_the_id_that_it_sent(
    cursor: Cursor, named: bytes | None
) -> None:
    names: list[bytes | None] = []

    def head(known: bytes | None) -> bytes:
        names.append(known)
        return b"HTTP/1.1 200 OK\r\n\r\n"

    channel = Channel(0, ("a",), (), None)
    subscription = Subscription(["a"], cursor, 10, MERCURE)
    last_frames(ReplayingStream(1, channel, subscription, PendingStream(-1, head, True, {})), 1000)
    assert names == [named]
