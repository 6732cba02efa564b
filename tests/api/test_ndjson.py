"""NDJSON is read natively, and means what each line means alone."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsse.api import batch as reading
from fastsse.api.batch import events_of_lines
from fastsse.entries import EventBatch, kinds_of
from fastsse.events import Event
from fastsse.http.problems import Problem

text = st.sampled_from(
    ["a", "b:c", "ö", "", "update", "error", "$x", "fastsse.x", "1-1", "x\ny", "z" * 1100]
)
value = st.one_of(
    text,
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 2**63, 2**64 - 1, 2**64, 2**70, 1.5, 1e22, "1e+22", "\u003a", "a:b"]),
    st.just({"a": {"b": [1, "c:d"]}}),
    st.just(["x", {"y": 2**65}]),
)
name = st.sampled_from(["topic", "data", "event", "id", "retry", "private", "meta", "nonsense"])
pairs = st.lists(st.tuples(name, value), max_size=4)
scalar = st.one_of(
    st.none(), st.integers(-(2**65), 2**65), st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(places=4, allow_nan=False, allow_infinity=False).map(float), st.text(),
)  # fmt: skip
nested = st.recursive(
    scalar, lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner))
)
usual = st.tuples(st.sampled_from(["a", "b:c", "ö"]), st.one_of(st.text(), value, nested)).map(
    lambda two: [("topic", two[0]), ("data", two[1])]
)


@st.composite
def line(draw: st.DrawFn) -> bytes:
    """Objects as a publisher writes them; names may stand twice."""
    members = draw(
        st.one_of(usual, usual.flatmap(lambda one: pairs.map(lambda more: one + more)), pairs)
    )
    ascii_only = draw(st.booleans())
    colon = draw(st.sampled_from([":", ": ", " : "]))
    written = [
        f"{json.dumps(key)}{colon}{json.dumps(one, ensure_ascii=ascii_only)}"
        for key, one in members
    ]
    if draw(st.integers(0, 9)) == 0:
        written = [one.replace(":", "\\u003a") for one in written]
    return f"{{{', '.join(written)}}}".encode("utf-8", "surrogatepass")


def outcome_of(lines: list[bytes], read: object) -> object:
    """The fields of all events, or the problem."""
    try:
        events = read(lines)  # type: ignore[operator]
    except Problem as problem:
        return problem.status, problem.field, problem.detail
    return [[getattr(event, slot) for slot in Event.__slots__] for event in events]


@given(
    st.lists(st.one_of(line(), line(), st.sampled_from([b"", b" ", b"[]", b"7", b"{"])), max_size=4)
)
def test_lines_read_natively_are_what_each_is_alone(lines: list[bytes]) -> None:
    together = outcome_of(lines, lambda given: events_of_lines(b"\n".join(given)))
    assert together == outcome_of(lines, reading._read_slowly)


@pytest.mark.parametrize(
    "raw",
    [
        rb'{"data":"a\/b\"c\\d\b\f\n\r\t","topic":"a"}',
        rb'{"topic":"a","data":"\u00e9"}',
        rb'{"topic":"a","data":"\ud800"}',
        rb'{"topic":"a","data":"\x"}',
        rb'{"topic":"a\/b","data":"x"}',
        b'{"topic":"a","data":"0123456789\x1fabcdef"}',
        b'{"topic":"a","data":"\xff"}',
        b'{"topic":"\xff","data":"x"}',
        b'{"topic":"a","data":"\xed\xa0\x80"}',
        b'{"topic":"a","data":"x","event":"\xff"}',
        b'\t{ "topic" :\t"a" , "event":"", "data" : "x" }\r',
        b'{"topic":"a","data":"x","event":"update","event":"b"}',
        b'{"topic":"a","data":"x","topic":"b"}',
        b'{"topic":"a","data":"x",}',
        b'{"topic":"a","data":"x"}}',
        b'{"topic":"a","data":"x"',
        b'{"topic":"a","data":"xyzxyzxyz',
        b'{"topic":"a","data"',
        b'{"topic":"a"}',
        rb'{"topic":"a","data":["\u0022\u005C\/\u000a\u000b\u001F\u007f\u00e9\ud83d\ude00\b\f"]}',
        rb'{"topic":"a","data":["\ud83d"]}',
        rb'{"topic":"a","data":["\ud83dx\ude00"]}',
        rb'{"topic":"a","data":["\ude00"]}',
        rb'{"topic":"a","data":{"a":1,"\u0061":2}}',
        rb'{"topic":"a","data":{"a":"\\\"","b":[ 1 ,\t2 ],"c":" \t"}}',
        b'{"topic":"a","data":{"a":1,"b":{"a":2},"a":3}}',
        b'{"topic":"a","data":{"b":[{"a":1},{"a":2}]}}',
        b'{"topic":"a","data":[-0,0.0,-0.0,1.0,1.50,1e3,1E400,0.0001,0.00001,123456789012.125]}',
        b'{"topic":"a","data":[999999999999999999,9999999999999999999,99999999999999999999]}',
        b'{"topic":"a","data":[01]}',
        *(
            b'{"topic":"a","data":[%s]}' % number
            for number in (
                b"1e3",
                b"1E3",
                b"1e999",
                b"1e-3",
                b"1.5e3",
                b"-0",
                b"0.0",
                b"1.50",
                b"0.00001",
            )
        ),
        b'{"topic":"a","data":' + b"[" * 200 + b"]" * 200 + b"}",
        b'{"topic":"a","data":{' + b",".join(b'"%d":1' % n for n in range(40)) + b"}}",
        b'{"topic":"a","data":{' + b",".join(b'"%d":1' % (n % 39) for n in range(40)) + b"}}",
    ],
)
def test_a_line_of_strings_is_what_it_is_alone(raw: bytes) -> None:
    lines = [b'{"topic":"a","data":"before"}', raw, b'{"topic":"b","data":"behind"}']
    together = outcome_of(lines, lambda given: events_of_lines(b"\n".join(given)))
    assert together == outcome_of(lines, reading._read_slowly)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"topic": "a", "data": "x", "event": "fastsse.x"}, "event"),
        ({"topic": "$a", "data": "x"}, "topic"),
        ({"topic": "a", "data": [2**64]}, "data"),
        ({"topic": "a"}, "data"),
        ({"topic": "a", "data": "x", "other": 1}, "other"),
    ],
)
def test_the_wrong_line_of_many_is_named(wrong: dict[str, object], field: str) -> None:
    lines = [json.dumps({"topic": "a", "data": str(number)}).encode() for number in range(100)]
    lines[57] = json.dumps(wrong).encode()
    with pytest.raises(Problem, match="Line 58: ") as caught:
        events_of_lines(b"\n".join(lines))
    assert (caught.value.field, caught.value.members) == (field, {"line": 58})


def test_a_name_that_stands_twice_is_refused_whatever_else_has_colons() -> None:
    lines = [b'{"topic":"a:b","data":"c:d:e"}', b'{"topic":"a","data":"c:d","data":"e"}']
    assert len(events_of_lines(lines[0])) == 1
    with pytest.raises(Problem, match="Line 2: data: stands twice"):
        events_of_lines(b"\n".join(lines))


def test_kinds_are_the_distinct_topics_and_types() -> None:
    batch = EventBatch([("a",), ("b",), ("a",)], [b"1", b"2", b"3"])
    batch.append(Event("a", event="update"))
    batch.append(Event(["a", "b"]))
    expected = [(("a",), None), (("b",), None), (("a",), b"update"), (("a", "b"), None)]
    assert kinds_of(batch) == kinds_of(list(batch)) == expected
