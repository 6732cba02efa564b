"""A subscriber that cannot be taken: 200, `retry:` and an event, or a status on request."""

import json
import re

import pytest

from fastsse.server import Server
from tests.eventstream import parse
from tests.http.conftest import Start
from tests.http.raw import Answer, connected, get

HUB = "/.well-known/mercure"


@pytest.fixture
async def full(start: Start) -> Server:
    """A server that takes no stream at all."""
    server = await start(max_connections=1)
    server._worker._sender.allocate()
    return server


async def refused(server: Server, path: str, *, whole: bool = True) -> Answer:
    async with connected(server) as raw:
        await (raw.send if whole else raw.trickle)(get(path))
        return await raw.answer()


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("path", ["/events?topic=a", HUB + "?topic=a&fastsse=true"])
async def test_a_typed_event_stands_in_the_block_of_the_retry(full, path, whole) -> None:
    """Some libraries pass over a `retry:` without data, and return at once for ever."""
    answer = await refused(full, path, whole=whole)
    assert answer.status == 200
    assert answer.body.count(b"\n\n") == 1
    stream = parse(answer.body)
    (event,) = stream.events
    assert (event.type, event.last_event_id) == ("fastsse.refused", "")
    assert json.loads(event.data) == {"reason": "full", "retry_ms": stream.retry_ms}
    assert 5000 <= (stream.retry_ms or 0) <= 60_000


@pytest.mark.parametrize("whole", [True, False])
async def test_a_server_that_drains_says_so(start: Start, whole) -> None:
    server = await start()
    server._worker._hub.drain(0)
    (event,) = parse((await refused(server, "/events?topic=a", whole=whole)).body).events
    assert json.loads(event.data)["reason"] == "draining"


async def test_a_mercure_client_is_sent_no_event_that_it_does_not_know(full) -> None:
    answer = await refused(full, HUB + "?topic=a")
    assert re.fullmatch(rb"retry: \d+\n\n", answer.body)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("path", ["/events", HUB])
async def test_a_status_is_answered_on_request(full, path, whole) -> None:
    answer = await refused(full, f"{path}?topic=a&refuse=status", whole=whole)
    assert (answer.status, answer.json["reason"]) == (503, "full")
    assert 5 <= int(answer.headers["retry-after"]) <= 60


async def test_a_client_over_its_limit_gets_429_on_request(start: Start) -> None:
    server = await start(address_streams=1)
    async with connected(server) as raw:
        await raw.send(get("/events?topic=a"))
        await (await raw.stream()).opening()
        answer = await refused(server, "/events?topic=a&refuse=status")
        assert (answer.status, answer.json["reason"]) == (429, "limited")
        assert b'"reason":"limited"' in (await refused(server, "/events?topic=a")).body


@pytest.mark.parametrize("whole", [True, False])
async def test_without_control_events_the_response_is_cut(full, whole) -> None:
    """No client takes it for a whole and empty answer."""
    async with connected(full) as raw:
        await (raw.send if whole else raw.trickle)(get("/events?topic=a&fastsse=false"))
        status, headers = await raw.head()
        assert (status, headers["transfer-encoding"]) == (200, "chunked")
        assert re.fullmatch(rb"[0-9a-f]+\r\nretry: \d+\n\n\r\n", await raw.rest())
