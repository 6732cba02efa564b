"""AsyncClient and Client publish and subscribe with the same words, and keep events that the server
does not have yet."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fastsse import Config, Server
from fastsse.client import (
    AsyncClient,
    Client,
    ClientError,
    Outbox,
    OutboxFull,
    Pending,
    Refused,
    StreamView,
    Unreachable,
)
from tests.loopback import held_port
from tests.streamserver import Exchange, StreamServer, streaming

ROOT = Path(__file__).parents[2]
FIELDS: dict[str, Any] = {"event": "tick", "private": False, "meta": {"n": 1}, "ttl": "1h"}


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server(Config(port=0, drain=0)) as one:
        yield one


async def test_async_client_publishes_and_subscribes(server: Server) -> None:
    async with AsyncClient(server.addresses[0]) as client:
        async with client.subscribe("news") as events:
            receipt = await client.publish("news", {"n": 1}, **FIELDS)
            event = await anext(events)
        assert (event.json(), event.event, event.id) == ({"n": 1}, "tick", receipt.id)
        batch = await client.publish_many({"topic": "news", "data": str(n)} for n in range(100))
        assert batch.count == 100
        late = client.subscribe("news", last=101)
        assert [(await anext(late)).data for _ in range(101)][-1] == "99"
        await late.aclose()


async def test_event_without_data_is_an_event(server: Server, tmp_path: Path) -> None:
    url = server.addresses[0]
    async with AsyncClient(url) as client, client.subscribe("news") as events:
        first = await client.publish("news", "", key="k", expect="earliest", **FIELDS)
        assert (await client.publish("news", "", key="k", expect="earliest", **FIELDS)).duplicates
        second = await client.publish(["news", "sport"], b"", id="own", retry=500, receipt=True)
        assert second.streams is not None
        async with AsyncClient(url, outbox=Outbox()) as waiting:
            await waiting.publish("news", "")
        with Client(url) as plain:
            await asyncio.to_thread(plain.publish, "news", "", end=True)
        got = [await anext(events) for _ in range(4)]
        assert [event.data for event in got] == [""] * 4
        assert [event.event for event in got] == ["tick", "message", "message", "message"]
        assert [event.id for event in got[:2]] == [first.id, "own"]


async def test_gap_is_a_value_of_its_event(server: Server) -> None:
    async with AsyncClient(server.addresses[0]) as client:
        async with client.subscribe("news", last_event_id="1-0") as events:
            gap = (await anext(events)).gap
        assert gap is not None
        assert (gap.reason, gap.requested) == ("unknown_id", "1-0") or gap.requested == "1-0"


def in_thread(call: Any, *args: Any) -> Any:
    return asyncio.to_thread(call, *args)


async def test_client_without_asyncio_is_the_same(server: Server) -> None:
    def program(url: str) -> None:
        with Client(url) as client:
            with client.subscribe("news") as events:
                receipt = client.publish("news", {"n": 1}, **FIELDS)
                event = next(events)
                assert (event.json(), event.event, event.id) == ({"n": 1}, "tick", receipt.id)
                assert events.last_event_id == event.id
            numbers = [str(number) for number in range(10)]
            batch = client.publish_many({"topic": "a", "data": number} for number in numbers)
            assert batch.count == 10
            with client.subscribe("a", last=10) as events:
                assert [next(events).data for _ in numbers] == numbers
            client.end_topic("a")
            with pytest.raises(Refused) as refused:
                client.publish("a", "x")
            assert refused.value.status == 409
            # The stream of an ended topic is over.
            assert [event.event for event in client.subscribe("a", last=1)][-1] == "fastsse.end"
        # A later call starts again.
        assert client.publish("news", "again").id
        client.close()

    await in_thread(program, server.addresses[0])


async def test_pages_streams_and_relays_are_the_same_in_every_client(server: Server) -> None:
    lines = [{"topic": "a", "data": n} for n in range(3)]
    upstream = [b"data: 3\n\nda", b"ta: 4\n\n"]

    def program() -> None:
        with Client(server.addresses[0]) as client:
            assert client.publish_stream(iter(lines)).count == 3
            assert client.relay("a", iter(upstream), event="token", end_on_close=True).count == 2
            page = client.fetch_page("a", since="earliest", view=StreamView(event=("token",)))
            assert ([one.data for one in page.events], page.ended) == (["3", "4"], True)

    await in_thread(program)

    async def each(items: list[Any]) -> AsyncIterator[Any]:
        for item in items:
            yield item

    async with AsyncClient(server.addresses[0]) as client:
        page = await client.fetch_page("a", since="earliest")
        assert [one.data for one in page.events] == [0, 1, 2, "3", "4"]
        for line in lines:
            line["topic"] = "b"
        await client.publish_stream(each(lines), end_on_close=True)
        with pytest.raises(Refused) as refused:
            await client.relay("b", each(upstream), retry=10)
        assert refused.value.status == 409
        await client.relay("c", each(upstream), retry=10, private=True, meta={"n": 1})
        assert not (await client.fetch_page("c", last=1)).events


async def test_threads_share_a_client(server: Server) -> None:
    client = Client(server.addresses[0])
    try:
        ids = await asyncio.gather(*(in_thread(client.publish, "t", str(n)) for n in range(20)))
        assert len({receipt.id for receipt in ids}) == 20
    finally:
        await in_thread(client.close)


FORKING = """
import os, sys
from fastsse.client import Client
client = Client(sys.argv[1])
client.publish("t", "from the parent")
if (child := os.fork()) == 0:
    client.publish("t", "from the child")
    client.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
client.publish("t", "from the parent again")
client.close()
"""


async def test_client_made_before_a_fork_works_in_the_child(server: Server) -> None:
    """As in servers that load the application and then fork their workers."""
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FORKING, server.addresses[0], cwd=ROOT
    )
    async with asyncio.timeout(30):
        assert await program.wait() == 0
    async with AsyncClient(server.addresses[0]) as client:
        events = client.subscribe("t", last=3)
        assert [(await anext(events)).data for _ in range(3)] == [
            "from the parent",
            "from the child",
            "from the parent again",
        ]
        await events.aclose()


LEAVING = """
import asyncio, sys
from fastsse.client import AsyncClient, Client

client = Client(sys.argv[1])
client.publish_many({"topic": "t", "data": str(n)} for n in range(1000))
for event in client.subscribe("t", last=1000):
    break
client.close()

async def main():
    async with AsyncClient(sys.argv[1]) as client:
        async for event in client.subscribe("t", last=1000):
            break

asyncio.run(main())
"""


async def test_a_loop_over_events_can_be_left(server: Server) -> None:
    """As in the first example of the guide; nothing is printed."""
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", LEAVING, server.addresses[0]),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        _, printed = await program.communicate()
    assert (program.returncode, printed.decode()) == (0, "")


async def test_subscription_gives_up_after_its_tries() -> None:
    with held_port() as held:
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        async with AsyncClient(url, tries=1) as client:
            with pytest.raises(Unreachable):
                await anext(client.subscribe("news"))


async def test_tries_count_streams_without_an_event() -> None:
    empty = streaming(b"retry: 1\n\n")
    async with StreamServer(empty) as server, AsyncClient(server.url, tries=3) as client:
        with pytest.raises(Unreachable):
            await anext(client.subscribe("news"))
        assert len(server.requests) == 3


@pytest.mark.parametrize("options", [{"tries": 0}, {"tries": -1}])
async def test_absurd_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="tries"):
        AsyncClient("http://127.0.0.1:1", **options)
    with pytest.raises(ValueError, match="address"):
        Client("ftp://example.org")


# -- the outbox ----------------------------------------------------------------------------------


def outbox_of(kind: str, tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "outbox" if kind == "file" else None)


@pytest.mark.parametrize("kind", ["memory", "file"])
async def test_outbox_sends_what_was_published_while_the_server_was_away(
    kind: str, tmp_path: Path
) -> None:
    with held_port() as held, outbox_of(kind, tmp_path) as outbox:
        port = held.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        async with AsyncClient(url, outbox=outbox, timeout_s=0) as client:
            for number in range(3):
                with pytest.raises(Pending):
                    await client.publish("news", {"n": number}, event="tick")
            assert len(outbox) == 3
            async with Server(Config(port=port, drain=0)):
                async with asyncio.timeout(20):
                    await client.flush()
                events = client.subscribe("news", last=10)
                assert [(await anext(events)).json()["n"] for _ in range(3)] == [0, 1, 2]
                await events.aclose()
        assert len(outbox) == 0


async def test_outbox_file_survives_the_process(tmp_path: Path) -> None:
    with held_port() as held:
        port = held.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        with Outbox(tmp_path / "outbox") as outbox:
            async with AsyncClient(url, outbox=outbox, timeout_s=0) as client:
                with pytest.raises(Pending):
                    await client.publish("news", "kept")
            with pytest.raises(ClientError, match="another process"):
                Outbox(tmp_path / "outbox")
            with Outbox.of_process(tmp_path / "outbox") as second:
                assert len(second) == 0
            assert (tmp_path / "outbox.1").exists()
        with Outbox(tmp_path / "outbox") as outbox:
            assert len(outbox) == 1
            async with (
                Server(Config(port=port, drain=0)),
                AsyncClient(url, outbox=outbox) as client,
                asyncio.timeout(20),
            ):
                await client.flush()
                assert (await anext(client.subscribe("news", last=1))).data == "kept"


async def test_answer_that_is_lost_publishes_nothing_twice(server: Server) -> None:
    """A proxy passes the request on and loses the answer."""
    attempts: list[bytes] = []

    async def lossy(exchange: Exchange) -> None:
        attempts.append(exchange.body)
        await upstream.publish_ndjson(exchange.body)
        exchange.reset()

    async def honest(exchange: Exchange) -> None:
        attempts.append(exchange.body)
        receipt = await upstream.publish_ndjson(exchange.body)
        body = b'{"count":1,"first":"%b","last":"%b"}' % (receipt.id.encode(), receipt.id.encode())
        await exchange.answer("200 OK", body)

    with Outbox() as outbox:
        async with (
            AsyncClient(server.addresses[0]) as upstream,
            StreamServer(lossy, lossy, honest) as proxy,
            AsyncClient(proxy.url, outbox=outbox) as client,
        ):
            receipt = await client.publish("news", "once")
            await upstream.publish("news", "end")
            events = upstream.subscribe("news", last=10)
            assert [(await anext(events)).data for _ in range(2)] == ["once", "end"]
            await events.aclose()
            assert receipt.id
    assert len(attempts) == 3
    assert len(set(attempts)) == 1


async def test_event_that_the_server_refuses_does_not_block_the_others(server: Server) -> None:
    with Outbox() as outbox:
        async with AsyncClient(server.addresses[0], outbox=outbox) as client:
            published = asyncio.gather(
                client.publish("news", "1"),
                client.publish("$reserved", "2"),
                client.publish("news", "3"),
                return_exceptions=True,
            )
            async with asyncio.timeout(20):
                first, second, third = await published
            assert not isinstance(first, BaseException)
            assert isinstance(second, Refused)
            assert not isinstance(third, BaseException)
        assert len(outbox) == 0


@pytest.mark.parametrize("field", [{"delay": "1h"}, {"deliver_at": 1}, {"receipt": True}])
async def test_outbox_takes_no_field_of_a_single_request(field: dict[str, Any]) -> None:
    with Outbox() as outbox:
        async with AsyncClient("http://127.0.0.1:1", outbox=outbox, timeout_s=0) as client:
            with pytest.raises(ValueError, match=next(iter(field))):
                await client.publish("a", "x", **field)
        assert len(outbox) == 0


def test_outbox_is_bounded_in_events_and_bytes() -> None:
    with Outbox(max_events=2) as few, Outbox(max_bytes=10) as small:
        few.add(b"1")
        few.add(b"2")
        with pytest.raises(OutboxFull):
            few.add(b"3")
        few.remove(few.oldest(1, 100))
        few.add(b"3")
        assert [row.line for row in few.oldest(10, 100)] == [b"2", b"3"]
        small.add(b"12345678")
        with pytest.raises(OutboxFull):
            small.add(b"123")
        assert len(small) == 1


def test_many_threads_add_to_an_outbox() -> None:
    with Outbox() as outbox:
        threads = [
            threading.Thread(target=lambda: [outbox.add(b"x") for _ in range(50)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(outbox) == len(outbox.oldest(1000, 1 << 20)) == 200


async def test_every_client_lists_and_cancels_delayed_events(server: Server) -> None:
    url = server.addresses[0]
    async with AsyncClient(url) as client:
        ids = [(await client.publish("a", str(n), delay=3_600 + n)).scheduled for n in range(201)]
        await client.end_topic("over")
        dead = (await client.publish("over", "x", delay=0)).scheduled
        async with asyncio.timeout(60):
            found = await client.list_scheduled()
            while len(found) < 202 or not found[-1].reason:
                found = await client.list_scheduled()
        *waiting, last = found
        assert last.id == dead
        assert [event.id for event in waiting] == ids, "more than a page"
        assert (waiting[0].topics, waiting[0].reason) == (("a",), "")
        assert last.reason

    def program() -> None:
        with Client(url) as client:
            client.cancel(ids[0])
            assert [event.id for event in client.list_scheduled()] == [*ids[1:], dead]
            with pytest.raises(Refused) as refused:
                client.cancel(ids[0])
            assert refused.value.status == 404

    await in_thread(program)
