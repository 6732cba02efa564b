"""What `POST /events` takes as JSON and NDJSON, and what of it is refused, naming the field."""

import json
from contextlib import suppress
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastsse.api.batch import event_of_json, events_of_lines
from fastsse.errors import InvalidEvent
from fastsse.http.problems import Problem
from tests.api.published import JSON, NDJSON, newest, published_count


@pytest.mark.parametrize(
    ("data", "sent"),
    [
        ("text", "text"),
        ("", ""),
        ("a\nb", "a\nb"),
        ({"b": [1, 2.5, None, True], "a": "ü"}, '{"b":[1,2.5,null,true],"a":"ü"}'),
        ([], "[]"),
        (0, "0"),
        (None, "null"),
        (False, "false"),
        (18446744073709551615, "18446744073709551615"),
        (-9223372036854775808, "-9223372036854775808"),
        ("e+ e+1", "e+ e+1"),
        ({"x": "e+"}, '{"x":"e+"}'),
        ({"topic": 1, "id": {"id": 2}}, '{"topic":1,"id":{"id":2}}'),
        ({"a:b": ":", "c": [{"a": 1}, {"a": 2}]}, '{"a:b":":","c":[{"a":1},{"a":2}]}'),
    ],
    ids=range(14),
)
async def test_json_data_is_text_or_compact_json(ask, server, data, sent) -> None:
    body = json.dumps({"topic": "a", "data": data, "event": "e", "retry": "2000"}).encode()
    assert (await ask("POST", "/events", JSON, body=body)).status == 200
    event = (await newest(server))[0]
    assert (event.data, event.type) == (sent, "e")


async def test_json_may_name_several_topics(ask, server) -> None:
    body = b'{"topic": ["a", "b", "a"], "data": "x", "id": "7", "event": null, "retry": null}'
    assert (await ask("POST", "/events", f"{JSON}; charset=UTF-8", body=body)).json == {"id": "7"}
    assert (await newest(server, 1, "a")) == (await newest(server, 1, "b"))


REFUSED_JSON = {
    b"": "body",
    b"{": "body",
    b"\xff": "body",
    b'{"topic":"a","data":"\xff"}': "body",
    b'{"topic":"a","data":"\\ud800"}': "body",
    b"\xef\xbb\xbf{}": "body",
    b"[]": "body",
    b"1": "body",
    b"{}": "topic",
    b'{"topic":"a"}': "data",
    b'{"data":"a"}': "topic",
    b'{"topic":1,"data":"x"}': "topic",
    b'{"topic":{},"data":"x"}': "topic",
    b'{"topic":[],"data":"x"}': "topic",
    b'{"topic":[1],"data":"x"}': "topic",
    b'{"topic":["a",["b"]],"data":"x"}': "topic",
    b'{"topic":"","data":"x"}': "topic",
    b'{"topic":"a","data":"x","event":1}': "event",
    b'{"topic":"a","data":"x","event":"a\\nb"}': "event",
    b'{"topic":"a","data":"x","id":1}': "id",
    b'{"topic":"a","data":"x","id":"a\\u0000b"}': "id",
    b'{"topic":"a","data":"x","retry":1.5}': "retry",
    b'{"topic":"a","data":"x","retry":true}': "retry",
    b'{"topic":"a","data":"x","retry":-1}': "retry",
    b'{"topic":"a","data":"x","evnt":"tick"}': "evnt",
    b'{"topic":"a","data":"x","private":1}': "private",
    b'{"topic":"a","data":"x","private":null}': "private",
    b'{"topic":"a","data":"x","private":true,"private":false}': "private",
    b'{"topic":"a","data":"x","meta":"{}"}': "meta",
    b'{"topic":"a","data":"x","meta":{"a":[1]}}': "meta",
    b'{"topic":"a","data":"x","meta":{"a":1,"a":1}}': "data",
    b'{"topic":"a","data":"x","topic":"b"}': "topic",
    b'{"topic":"a","data":"x","data":"y"}': "data",
    b'{"topic":"a","data":{"id":1},"id":"a","id":"b"}': "id",
    b'{"topic":"a","data":{"id":1},"id":"a","\\u0069d":"b"}': "id",
    b'{"topic":"a","data":{"a":1,"a":2}}': "data",
    b'{"topic":"a","data":[{"b":{"a":1,"a":1}}]}': "data",
    b'{"topic":"a","data":{"a":1,"\\u0061":2}}': "data",
    b'{"topic":"a","data":{"a":"\\u003a","a":2,"b":"\\u003a"}}': "data",
    b'{"topic":"a","data":18446744073709551616}': "data",
    b'{"topic":"a","data":{"x":[-9223372036854775809]}}': "data",
    b'{"topic":"a","data":123456789012345678901234567890}': "data",
    b'{"topic":"a","data":' + b"9" * 5000 + b"}": "body",
    b'{"topic":"a","data":1e999}': "body",
    b'{"topic":"a","data":NaN}': "body",
    b'{"topic":"a","data":' + b"[" * 300 + b"]" * 300 + b"}": "data",
    b'{"topic":"a","data":' + b"[" * 20_000 + b"]" * 20_000 + b"}": "body",
    b'{"topic":"a","data":' + b'{"id":' * 200 + b"1" + b"}" * 201 + b"x": "body",
}


@pytest.mark.parametrize("body", REFUSED_JSON, ids=range(len(REFUSED_JSON)))
async def test_wrong_json_is_refused_naming_the_field(ask, server, body) -> None:
    answer = await ask("POST", "/events", JSON, body=body)
    assert (answer.status, answer.field) == (400, REFUSED_JSON[body])
    assert await published_count(server) == 0


@pytest.mark.parametrize(
    "meta",
    [
        "",
        "x",
        "[]",
        "7",
        '{"a":null}',
        '{"a":{}}',
        '{"é":1}',
        '{"a":1,"a":2}',
        '{"a":' + "9" * 400 + "}",
    ],
)
async def test_wrong_meta_of_the_query_is_refused(ask, server, meta) -> None:
    answer = await ask("POST", f"/events?topic=a&meta={quote(meta)}", body=b"x")
    assert (answer.status, answer.field) == (400, "meta")
    assert await published_count(server) == 0


async def test_wrong_line_of_a_batch_is_named_and_nothing_is_taken(ask, server) -> None:
    right = b'{"topic":"a","data":"x"}\n'
    for body, field in REFUSED_JSON.items():
        if not body:
            continue  # An empty line is left out.
        answer = await ask("POST", "/events", NDJSON, body=right + b"\n" + body + b"\n" + right)
        assert (answer.status, answer.field) == (400, field), body[:100]
        assert answer.json["line"] == 3
        assert answer.json["detail"].startswith("Line 3: ")
    assert await published_count(server) == 0
    answer = await ask("POST", "/events", NDJSON, body=right + b"\n\n" + right)
    assert answer.json["count"] == 2


async def test_batch_is_ordered_and_answered_with_its_ends(ask, server) -> None:
    lines = [json.dumps({"topic": "a", "data": {"n": n}}) for n in range(1000)]
    answer = await ask("POST", "/events", NDJSON, body="\r\n".join(lines).encode())
    events = await newest(server, 1000)
    assert [json.loads(event.data)["n"] for event in events] == list(range(1000))
    assert answer.json == {
        "count": 1000,
        "first": events[0].last_event_id,
        "last": events[-1].last_event_id,
    }


async def test_batch_names_own_ids(ask) -> None:
    body = b'{"topic":"a","data":1,"id":"x\\"y"}\n{"topic":"a","data":2,"id":"z"}'
    answer = await ask("POST", "/events", NDJSON, body=body)
    assert answer.json == {"count": 2, "first": 'x"y', "last": "z"}


async def test_object_over_two_lines_is_no_batch(ask, server) -> None:
    answer = await ask("POST", "/events", NDJSON, body=b'{"topic":"a",\n"data":"x"}')
    assert (answer.status, answer.json["line"]) == (400, 1)
    two_in_one = b'{"topic":"a","data":"x"},{"topic":"a","data":"x"}'
    assert (await ask("POST", "/events", NDJSON, body=two_in_one)).status == 400
    assert await published_count(server) == 0


@pytest.mark.parametrize("body", [b"", b"\n", b"\r\n \n"])
async def test_empty_batch_is_refused(ask, body) -> None:
    answer = await ask("POST", "/events", NDJSON, body=body)
    assert (answer.status, answer.field) == (400, "body")


@pytest.mark.parametrize(
    "kind",
    [
        "Content-Type: text/plain",
        "Content-Type: application/x-www-form-urlencoded",
        "Content-Type: multipart/form-data; boundary=x",
        "Content-Type: application/jsonx",
        "Content-Type: application/json; charset=latin-1",
        "X: y",
    ],
)
async def test_other_types_are_refused_naming_what_is_accepted(ask, kind) -> None:
    answer = await ask("POST", "/events", kind, body=b"{}")
    assert (answer.status, answer.field) == (415, "Content-Type")
    if "charset" not in kind:
        assert "application/json" in answer.json["detail"]
        assert "application/x-ndjson" in answer.json["detail"]
        assert answer.headers["accept-post"] == "application/json, application/x-ndjson"


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd, gzip", "GZIP"])
async def test_compressed_bodies_are_refused(ask, coding) -> None:
    answer = await ask("POST", "/events?topic=a", f"Content-Encoding: {coding}", body=b"x")
    assert (answer.status, answer.field) == (415, "Content-Encoding")
    assert answer.headers["accept-encoding"] == "identity"


# ── Reading JSON, on its own ──────────────────────────────────────────────────────────────────

members = st.fixed_dictionaries(
    {
        "topic": st.sampled_from(["a", "b/c", "ü"]),
        "data": st.recursive(
            st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text('ab"\\e+\n\0é'),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["topic", "data", "id", "e+"]), inner, max_size=3)
            ),
            max_leaves=5,
        ),
    },
    optional={"event": st.none() | st.just("tick"), "id": st.text("xyz", min_size=1, max_size=9)},
)


@given(st.lists(members, min_size=1, max_size=5), st.booleans())
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_batch_reads_as_its_lines_do(objects, spaced) -> None:
    separators = (", ", " : ") if spaced else (",", ":")
    lines = [
        json.dumps(one, separators=separators, ensure_ascii=spaced).encode() for one in objects
    ]
    events = events_of_lines(b"\n".join(lines))
    for one, line, event in zip(objects, lines, events, strict=True):
        alone = event_of_json(line)
        assert (event.topics, event.data, event.id) == (alone.topics, alone.data, alone.id)
        data = one["data"]
        assert (event.data.decode() if isinstance(data, str) else json.loads(event.data)) == data


@given(st.binary(max_size=200) | st.text('{}[]",:0123456789abe+\\ topicdata\n').map(str.encode))
def test_nothing_but_a_problem_comes_of_nonsense(body) -> None:
    for read in (event_of_json, events_of_lines):
        with suppress(InvalidEvent, Problem):
            read(body)
