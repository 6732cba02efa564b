"""A mount serves streams at its path, asks the application who may, and leaves the rest alone. The
server here is none that is known, so a task copies each stream."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

import fastsse
from fastsse.asgi.relaying import StreamCut
from tests.asgi.inprocess import Call, Lifespan, absent, opened, until

QUICK = fastsse.Config(drain=0)


@pytest.fixture
async def app() -> AsyncIterator[fastsse.Mount]:
    async with fastsse.mount(absent, "/events", config=QUICK) as mounted:
        yield mounted


async def test_stream_gets_what_the_program_publishes(app: fastsse.Mount) -> None:
    async with Call(app, "/events?topic=news") as stream:
        await opened(app, stream)
        await app.publish("news", {"n": 1}, event="tick")
        assert await stream.has(1) == [("tick", '{"n":1}')]
        assert stream.status == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert "transfer-encoding" not in stream.headers
        assert app.counters() == {"mounted_native": 0, "mounted_server": 1}


async def test_cut_stream_resumes_after_its_last_event(app: fastsse.Mount) -> None:
    first = await app.publish("news", "1")
    await app.publish("news", "2")
    async with Call(app, "/events?topic=news", headers={"Last-Event-ID": first}) as stream:
        assert await stream.has(1) == [("", "2")]
        await app.publish("news", "3")
        assert await stream.has(2) == [("", "2"), ("", "3")]


async def test_stream_ends_when_its_client_leaves(app: fastsse.Mount) -> None:
    async with Call(app, "/events?topic=news") as stream:
        await opened(app, stream)
        stream.leave()
        await stream.answered()
    await until(lambda: not app.stream_count)


async def test_poll_waits_no_longer_when_its_client_leaves(app: fastsse.Mount) -> None:
    async with Call(app, "/events?topic=news&wait=60s") as poll:
        await until(lambda: app._engine is not None)
        assert app._engine is not None
        polls = app._engine._worker._hub.streams.polls
        await until(lambda: polls.waiting == 1)
        poll.leave()
        await poll.answered()
        assert polls.waiting == 0
        assert poll.status == 0
    async with Call(app, "/events?topic=news&wait=60s") as poll:
        await until(lambda: polls.waiting == 1)
        await app.publish("news", "1")
        await poll.answered()
        assert poll.status == 200
        assert b'"data":"1"' in poll.body


async def test_poll_whose_grants_end_while_it_waits_is_refused() -> None:
    def authorize(scope: Any) -> fastsse.Grants:
        return fastsse.Grants(subscribe=["news"], expires_s=time.time() + 0.3)

    async with (
        fastsse.mount(absent, "/events", authorize=authorize, config=QUICK) as app,
        Call(app, "/events?topic=news&wait=60s") as poll,
    ):
        await poll.answered()
        assert poll.status == 401


async def test_stream_of_an_ended_topic_is_complete(app: fastsse.Mount) -> None:
    async with Call(app, "/events?topic=run") as stream:
        await opened(app, stream)
        await app.publish("run", "1")
        await app.end_topic("run")
        await stream.answered()
        assert stream.is_complete
        assert [kind for kind, _ in stream.events] == ["", "fastsse.end"]


async def test_drained_stream_has_no_last_part(app: fastsse.Mount) -> None:
    async with Call(app, "/events?topic=news") as stream:
        await opened(app, stream)
        await app.close()
        with pytest.raises(StreamCut):
            await stream.answered()
        assert not stream.is_complete
        assert b"retry:" in stream.body


async def test_client_that_does_not_read_lags_in_the_sender() -> None:
    """What the ASGI server does not take is not read from the pair."""
    config = fastsse.Config(drain=0, max_lag="256KB", max_lag_time="30s")
    async with (
        fastsse.mount(absent, config=config) as app,
        Call(app, "/events?topic=news") as stream,
    ):
        await opened(app, stream)
        stream.gate.clear()
        for _ in range(40):
            await app.publish("news", "x" * 50_000)
            await asyncio.sleep(0)
        await until(lambda: not app.stream_count)
        stream.gate.set()
        with pytest.raises(StreamCut):
            await stream.answered()
        assert len(stream.body) < 1_000_000


async def test_other_paths_are_the_applications(app: fastsse.Mount) -> None:
    for target in ("/", "/events2", "/events/more"):
        async with Call(app, target) as call:
            assert (await call.answered()).body == b"absent"


async def test_application_finds_the_mount_in_its_scope() -> None:
    found: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        found.append(scope["fastsse"])
        await absent(scope, receive, send)

    app = fastsse.mount(inner)
    async with Call(app, "/") as call:
        await call.answered()
    assert found == [app]


async def test_root_path_of_the_server_is_not_part_of_the_path(app: fastsse.Mount) -> None:
    call = Call(app, "/shop/events?topic=news")
    call.scope["root_path"] = "/shop"
    async with call:
        await opened(app, call)
        assert call.status == 200


@pytest.mark.parametrize(
    ("target", "method", "status", "says"),
    [
        ("/events", "GET", 400, b'"field":"topic"'),
        ("/events?topic=t&filter=(", "GET", 400, b'"field":"filter"'),
        ("/events?topic=%FF", "GET", 400, b"UTF-8"),
        ("/events?topic=t", "PUT", 405, b"PUT is not allowed"),
        ("/events?topic=t", "POST", 403, b"does not let this client publish"),
        ("/events?topic=t", "HEAD", 200, b""),
        ("/events", "OPTIONS", 204, b""),
    ],
)
async def test_request_that_opens_no_stream_is_answered(
    app: fastsse.Mount, target: str, method: str, status: int, says: bytes
) -> None:
    async with Call(app, target, method=method) as call:
        await call.answered()
        assert call.status == status
        assert says in call.body
        assert call.is_complete


async def test_full_server_tells_when_to_return() -> None:
    config = fastsse.Config(drain=0, max_connections=1)
    async with fastsse.mount(absent, config=config) as app, Call(app, "/events?topic=a") as first:
        await opened(app, first)
        async with Call(app, "/events?topic=a") as second:
            await second.answered()
            assert second.status == 200
            assert [kind for kind, _ in second.events] == ["fastsse.refused"]
        async with Call(app, "/events?topic=a&fastsse=false") as third:
            with pytest.raises(StreamCut):
                await third.answered()
            assert b"retry:" in third.body


# -- who may -------------------------------------------------------------------------------------


class Refused(Exception):
    """As of a web framework."""

    status_code = 418
    detail = "no coffee"


def by_user(scope: Any) -> Any:
    user = dict(scope["headers"]).get(b"cookie", b"").decode()
    if user == "teapot":
        raise Refused
    if user == "broken":
        raise ValueError("broken")
    if user == "text":
        return "user/text"
    if not user:
        return None
    if user == "writer":
        return fastsse.Grants(publish=["news"], subject="writer")
    return [f"user/{user}"]


async def by_user_later(scope: Any) -> Any:
    await asyncio.sleep(0)
    return by_user(scope)


@pytest.fixture(params=[by_user, by_user_later])
async def guarded(request: pytest.FixtureRequest) -> AsyncIterator[fastsse.Mount]:
    async with fastsse.mount(absent, authorize=request.param, config=QUICK) as mounted:
        yield mounted


async def test_private_events_reach_only_streams_with_a_grant(guarded: fastsse.Mount) -> None:
    target = "/events?topic=user/7&topic=all"
    seven, eight = ({"Cookie": user} for user in ("7", "8"))
    async with Call(guarded, target, headers=seven) as its:
        await opened(guarded, its)
        async with Call(guarded, target, headers=eight) as other:
            await opened(guarded, other, 2)
            await guarded.publish("user/7", "secret", private=True)
            await guarded.publish("all", "public")
            assert await its.has(2) == [("", "secret"), ("", "public")]
            assert await other.has(1) == [("", "public")]


@pytest.mark.parametrize(
    ("user", "status", "says"),
    [
        ("", 403, b"does not allow"),
        ("teapot", 418, b"no coffee"),
        ("broken", 500, b"failed to handle"),
        ("text", 500, b"failed to handle"),
    ],
)
async def test_client_that_the_application_refuses_gets_no_stream(
    guarded: fastsse.Mount, user: str, status: int, says: bytes
) -> None:
    headers = {"Cookie": user} if user else {}
    async with Call(guarded, "/events?topic=t", headers=headers) as call:
        await call.answered()
        assert (call.status, call.is_complete) == (status, True)
        assert says in call.body
        assert b"broken" not in call.body


async def test_client_publishes_what_it_is_granted(guarded: fastsse.Mount) -> None:
    writer = {"Cookie": "writer", "Content-Type": "text/plain"}
    async with Call(guarded, "/events?topic=news", headers={"Cookie": "7"}) as stream:
        await opened(guarded, stream)
        post = Call(guarded, "/events?topic=news", method="POST", headers=writer, body=b"hello")
        async with post:
            assert (await post.answered()).status == 200
        assert await stream.has(1) == [("", "hello")]
    for target, headers in (("user/7", writer), ("news", {"Cookie": "7"})):
        call = Call(guarded, f"/events?topic={target}", method="POST", headers=headers, body=b"x")
        async with call:
            assert (await call.answered()).status == 403


async def test_page_of_another_origin_does_not_publish(guarded: fastsse.Mount) -> None:
    headers = {"Cookie": "writer", "Origin": "https://evil.example", "Host": "shop.example"}
    post = Call(guarded, "/events?topic=news", method="POST", headers=headers, body=b"x")
    async with post:
        assert (await post.answered()).status == 403


async def test_body_above_max_body_is_refused() -> None:
    config = fastsse.Config(drain=0, max_body=1024)
    writer = {"Cookie": "writer"}
    async with fastsse.mount(absent, authorize=by_user, config=config) as app:
        post = Call(app, "/events?topic=news", method="POST", headers=writer, body=b"x" * 2000)
        async with post:
            assert (await post.answered()).status == 413
            assert b"1024" in post.body


def test_path_and_rights_that_contradict_are_refused() -> None:
    for path in ("events", "/", ""):
        with pytest.raises(ValueError, match="path such as"):
            fastsse.mount(absent, path)
    with pytest.raises(ValueError, match="publish_token"):
        fastsse.mount(absent, authorize=by_user, config=fastsse.Config(publish_token="x" * 32))


# -- start and end -------------------------------------------------------------------------------


async def test_lifespan_of_the_server_starts_and_drains() -> None:
    app = fastsse.mount(absent, config=QUICK)
    lifespan = Lifespan(app)
    async with lifespan:
        assert lifespan.started == "lifespan.startup.complete"
        async with Call(app, "/events?topic=news") as stream:
            await opened(app, stream)
    assert lifespan.stopped == "lifespan.shutdown.complete"
    assert app.stream_count == 0


async def test_lifespan_of_the_application_is_within() -> None:
    seen: list[object] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        seen.append(await app.publish("news", "at the start"))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        seen.append(await app.publish("news", "at the end"))
        await send({"type": "lifespan.shutdown.complete"})

    app = fastsse.mount(inner, config=QUICK)
    async with Lifespan(app):
        assert len(seen) == 1
    assert len(seen) == 2


async def test_application_that_fails_to_start_fails_the_mount() -> None:
    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise OSError("no database")

    app = fastsse.mount(inner, config=QUICK)

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.startup"}

    with pytest.raises(OSError, match="no database"):
        await app({"type": "lifespan"}, receive, None)  # type: ignore[arg-type]
    await app.close()


async def test_thread_publishes(app: fastsse.Mount) -> None:
    id = await asyncio.to_thread(app.publish_from_thread, "news", "hello", event="greeting")
    async with Call(app, "/events?topic=news&last=1") as stream:
        assert await stream.has(1) == [("greeting", "hello")]
    assert id


async def test_handlers_see_what_is_published() -> None:
    app = fastsse.mount(absent, config=QUICK)
    seen: list[str] = []

    @app.on("order.*")
    def note(event: fastsse.HandledEvent) -> None:
        seen.append(event.data)

    async with app:
        await app.publish("a", "1", event="order.paid")
        await app.publish("a", "2")
    assert seen == ["1"]


def test_mount_goes_on_in_the_loop_of_the_next_test() -> None:
    """Test clients close their loop without a lifespan."""
    app = fastsse.mount(absent, config=QUICK)
    ids = [asyncio.run(app.publish("news", str(n))) for n in range(2)]
    assert len(set(ids)) == 2
    asyncio.run(app.close())


async def test_thread_of_a_mount_that_never_ran_gets_an_error() -> None:
    with pytest.raises(RuntimeError, match="does not run"):
        fastsse.mount(absent).publish_from_thread("news", "x")


async def test_viewers_of_a_topic_are_counted_and_waited_for(app: fastsse.Mount) -> None:
    assert app.viewers("run/1") == 0
    leaving = asyncio.create_task(app.unwatched("run/1", 0.2))
    async with Call(app, "/events?topic=run/1&topic=other") as one:
        await opened(app, one)
        async with Call(app, "/events?topic=run/1") as two:
            await opened(app, two, 2)
            assert app.viewers("run/1") == 2
        await until(lambda: app.viewers("run/1") == 1)
        await asyncio.sleep(0.3)
        assert not leaving.done()
    async with asyncio.timeout(10):
        await leaving
    assert app.viewers("run/1") == app.viewers("other") == 0


async def test_feeds_and_delayed_events_are_stored_by_the_program(app: fastsse.Mount) -> None:
    topics = [f"stocks/{n}" for n in range(300)]
    await app.publish(topics[7], "old")
    feed = await app.store_feed(topics)
    async with Call(app, f"/events?feed={feed}&last_each=1") as stream:
        assert (await stream.has(2))[0] == ("", "old")
        await app.publish("another", "x")
        waits = await app.schedule(topics[299], "late", delay=0.05)
        assert (await stream.has(3))[2] == ("", "late")
        assert waits
    never = await app.schedule("a", "never", delay=3_600)
    assert never in [one.id for one in await app.list_scheduled()]
    await app.cancel(never)
    async with Call(app, f"/events?feed={'0' * 32}") as unknown:
        ((kind, data),) = (await unknown.answered()).events
        assert kind == "fastsse.gap"
        assert '"reason":"feed"' in data
