"""Publishes with keys, and publishes that expect an id: what is stored, answered and refused."""

import json

import pytest

from tests.http.raw import connected, get

NDJSON = "Content-Type: application/x-ndjson"
JSON = "Content-Type: application/json"


async def stored(server, topic: str) -> list[str]:
    """The data kept of a topic."""
    async with connected(server) as raw:
        await raw.send(get(f"/events?topic={topic}&last_event_id=earliest", "Connection: close"))
        await raw.send(b"")
        stream = await raw.stream()
        server.publish(topic, "end of test", end=True)
        data = []
        while (event := await stream.next()).type != "fastsse.end":
            data.append(event.data)
        return data[:-1]


async def test_a_repeated_request_gets_the_answer_of_the_first(ask, server) -> None:
    lines = b'{"topic": "a", "data": 1}\n{"topic": "a", "data": 2}'
    header = 'Idempotency-Key: "8e03978e"'
    first = await ask("POST", "/events", NDJSON, header, body=lines)
    again = await ask("POST", "/events", NDJSON, header, body=lines)
    assert (first.status, again.status) == (200, 200)
    assert again.json == first.json
    other = await ask("POST", "/events", NDJSON, header, body=lines + b"\n")
    assert (other.status, other.json["reason"]) == (422, "key_reused")
    elsewhere = await ask("POST", "/events?topic=b", header, body=lines)
    assert elsewhere.status == 422
    assert await stored(server, "a") == ["1", "2"]


async def test_lines_with_known_keys_are_skipped_and_counted(ask, server) -> None:
    def lines(*keys: str) -> bytes:
        events = [{"topic": "a", "data": key, "key": key} for key in keys]
        return "\n".join(map(json.dumps, events)).encode()

    first = await ask("POST", "/events", NDJSON, body=lines("x", "y"))
    assert "duplicates" not in first.json
    again = await ask("POST", "/events", NDJSON, body=lines("y", "z", "z"))
    assert again.json["duplicates"] == 2
    assert again.json["first"] == first.json["last"]
    one = await ask("POST", "/events?topic=a&key=x", body=b"changed")
    assert one.json == {"id": first.json["first"], "duplicates": 1}
    assert server.publish("a", "again", key="z") == again.json["last"]
    assert await stored(server, "a") == ["x", "y", "z"]


async def test_a_publish_that_expects_another_id_is_refused_with_the_newest(ask, server) -> None:
    first = await ask("POST", "/events?topic=a&expect=earliest", body=b"1")
    assert first.status == 200
    refused = await ask("POST", "/events?topic=a", "If-Match: earliest", body=b"2")
    assert (refused.status, refused.json["current"]) == (412, first.json["id"])
    quoted = f'If-Match: "{first.json["id"]}"'
    body = b'{"topic": "a", "data": "2", "id": "own"}'
    assert (await ask("POST", "/events", JSON, quoted, body=body)).status == 200
    body = b'{"topic": "a", "data": "3", "expect": "own"}'
    assert (await ask("POST", "/events", JSON, body=body)).status == 200
    assert (await ask("POST", "/events", JSON, body=body)).json["reason"] == "expect"
    with pytest.raises(Exception, match="not as expected"):
        server.publish("a", "4", expect="own")
    assert await stored(server, "a") == ["1", "2", "3"]


async def test_a_full_table_of_keys_refuses_new_keys_and_knows_the_old_ones(start, ask) -> None:
    from tests.http.conftest import asked

    server = await start(keys_total="1KiB")
    path = "/events?topic=a&key="
    statuses = [(await asked(server, "POST", f"{path}{n}", body=b"x")).status for n in range(6)]
    assert statuses[:2] == [200, 200]
    assert statuses[-1] == 503
    assert (await asked(server, "POST", f"{path}0", body=b"x")).json["duplicates"] == 1
    assert (await asked(server, "POST", "/events?topic=a", body=b"x")).status == 200


@pytest.mark.parametrize(
    ("path", "headers", "body", "field"),
    [
        ("/events?topic=a&key=", (), b"x", "key"),
        ("/events?topic=a&key=" + "k" * 257, (), b"x", "key"),
        ("/events?topic=a&key=%C3%A9", (), b"x", "key"),
        ("/events?topic=a&key=%00", (), b"x", "key"),
        ("/events?topic=a", ("Idempotency-Key: ",), b"x", "Idempotency-Key"),
        ("/events?topic=a", ("Idempotency-Key: " + "k" * 300,), b"x", "Idempotency-Key"),
        ("/events?topic=a&key=1", ("Idempotency-Key: 1",), b"x", "key"),
        ("/events", (JSON,), b'{"topic": "a", "data": "", "key": 1}', "key"),
        ("/events", (JSON,), b'{"topic": "a", "data": "", "expect": []}', "expect"),
        ("/events?topic=a&expect=", (), b"x", "expect"),
        ("/events?topic=a&topic=b&expect=1-1", (), b"x", "expect"),
        ("/events?topic=a", ("If-Match: *",), b"x", "If-Match"),
        ("/events", (NDJSON, "If-Match: 1-1"), b'{"topic":"a","data":1}\n' * 2, "If-Match"),
    ],
)
async def test_keys_and_expectations_that_can_not_be_are_refused(
    ask, path, headers, body, field
) -> None:
    answer = await ask("POST", path, *headers, body=body)
    assert (answer.status, answer.field) == (400, field)
