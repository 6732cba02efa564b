"""No publisher can forge an event, an id or a reconnection time in others' streams.

What a publish holds is read from the wire by two parsers that know nothing of each other; both
must see one event, with exactly what was sent, or the publish must have been refused.
"""

import json
from collections.abc import Callable
from urllib.parse import urlencode

import pytest
import sseclient

from fastsse.server import Server
from tests.attack.conftest import Start
from tests.eventstream import parse
from tests.http.raw import connected, get, request

TROUBLE = {
    "CR": "\r",
    "LF": "\n",
    "CRLF": "\r\n",
    "NUL": "\0",
    "BOM": "\ufeff",
    "NEL": "\x85",
    "LS": "\u2028",
    "PS": "\u2029",
    "VT": "\x0b",
    "FF": "\x0c",
    "FS": "\x1c",
    "DEL": "\x7f",
    "C1": "\x9b",
    "bidi": "\u202e",
    "zero width": "\u200b",
    "escape": "\x1b[2J",
}
FORGED = "id: forged\nretry: 1\nevent: forged\ndata: forged\n\ndata: forged\n\n"
FIELDS = ("data", "event", "id", "topic")
Way = Callable[[dict[str, str]], bytes]


def by_query(fields: dict[str, str]) -> bytes:
    query = {name: value for name, value in fields.items() if name != "data"}
    return request("POST", f"/events?{urlencode(query)}", body=fields["data"].encode())


def by_json(fields: dict[str, str]) -> bytes:
    body = json.dumps(fields).encode()
    return request("POST", "/events", "Content-Type: application/json", body=body)


def by_lines(fields: dict[str, str]) -> bytes:
    body = json.dumps(fields).encode() + b"\n"
    return request("POST", "/events", "Content-Type: application/x-ndjson", body=body)


def by_form(fields: dict[str, str]) -> bytes:
    names = {"event": "type"}
    body = urlencode({names.get(name, name): value for name, value in fields.items()}).encode()
    kind = "Content-Type: application/x-www-form-urlencoded"
    return request("POST", "/.well-known/mercure", kind, body=body)


WAYS: dict[str, Way] = {
    "query": by_query,
    "json": by_json,
    "lines": by_lines,
    "form": by_form,
}


def one_line(text: str) -> str:
    """Data as a client joins its lines again (WHATWG HTML §9.2.6)."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def check(wire: bytes, fields: dict[str, str]) -> None:
    """Both parsers see this event and no other."""
    seen = parse(wire)
    (event,) = seen.events
    assert event.data == one_line(fields["data"])
    assert event.type == fields.get("event", "message")
    assert "forged" not in (event.type, event.last_event_id)
    assert seen.retry_ms is None
    (other,) = sseclient.SSEClient(iter([wire])).events()
    assert (other.data, other.event) == (event.data, event.type)
    assert other.id == event.last_event_id
    if "id" in fields:
        assert event.last_event_id == fields["id"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("field", FIELDS)
async def test_nothing_breaks_out_of_a_field(start: Start, way: str, field: str) -> None:
    server = await start()
    for name in TROUBLE:
        await breaks_out_of_nothing(server, way, field, name)


async def breaks_out_of_nothing(server: Server, way: str, field: str, name: str) -> None:
    text = f"a{TROUBLE[name]}{FORGED.replace(chr(10), TROUBLE[name])}z"
    fields = {"topic": "t", "data": "x", field: text}
    async with connected(server) as reader, connected(server) as raw:
        await reader.send(get("/events?topic=*"))
        stream = await reader.stream()
        await stream.opening()
        opening = len(stream.body)
        await raw.send(WAYS[way](fields))
        answer = await raw.answer()
        if answer.status == 200:
            await stream.next()
            check(stream.body[opening:], fields)
        else:
            assert (answer.status, answer.field) in [(400, field), (400, "type")], name
            assert field != "data", name
            server.publish("t", "after")
            assert (await stream.next()).data == "after"


@pytest.mark.parametrize(
    "body",
    [b'{"topic":"t","data":"\\ud800"}', b'{"topic":"t","data":"\xff"}', b'{"topic":"\\udfff"}'],
)
async def test_what_is_no_utf_8_is_refused(start: Start, body: bytes) -> None:
    server = await start()
    async with connected(server) as raw:
        await raw.send(request("POST", "/events", "Content-Type: application/json", body=body))
        assert (await raw.answer()).status == 400


@pytest.mark.parametrize(
    "retry", ["1\n", "1\ndata: x", "-1", "0x1", "1e9", " 1", "\u0661", "NaN", "1\0"]
)
@pytest.mark.parametrize("way", WAYS)
async def test_a_retry_is_digits_or_refused(start: Start, way: str, retry: str) -> None:
    server = await start()
    async with connected(server) as raw:
        await raw.send(WAYS[way]({"topic": "t", "data": "x", "retry": retry}))
        answer = await raw.answer()
        assert (answer.status, answer.field) == (400, "retry")


@pytest.mark.parametrize("own", ["   ", "\t", "x" * 257, "earliest", "1-1", "é" * 200])
async def test_an_id_that_no_client_could_send_back_is_refused(start: Start, own: str) -> None:
    server = await start()
    async with connected(server) as raw:
        await raw.send(by_json({"topic": "t", "data": "x", "id": own}))
        assert (await raw.answer()).field == "id"


async def test_names_of_the_servers_own_events_can_not_be_borrowed(start: Start) -> None:
    server = await start()
    for name in ("fastsse.gap", "fastsse.ping", "fastsse.expiring", "fastsse."):
        async with connected(server) as raw:
            await raw.send(by_json({"topic": "t", "data": "x", "event": name}))
            assert (await raw.answer()).field == "event"


async def test_a_million_lines_and_one_long_line_arrive_as_they_were(start: Start) -> None:
    server = await start()
    async with connected(server) as reader, connected(server) as raw:
        await reader.send(get("/events?topic=t"))
        stream = await reader.stream()
        await stream.opening()
        for data in ("\n" * 500_000, "x" * 1_000_000, " "):
            await raw.send(by_query({"topic": "t", "data": data}))
            assert (await raw.answer()).status == 200
            assert (await stream.next()).data == data
