"""Metadata is a small object of plain values, whatever way it comes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsse.errors import InvalidEvent
from fastsse.events import Event
from fastsse.meta import META_BYTES_MAX, META_MEMBERS_MAX, encode_meta

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,10}", fullmatch=True)
numbers = st.integers(-(1 << 63), (1 << 64) - 1) | st.floats(allow_nan=False, allow_infinity=False)
objects = st.dictionaries(names, st.text(max_size=20) | numbers | st.booleans(), max_size=5)


@given(objects)
def test_an_object_and_its_json_give_the_same(members: dict) -> None:
    encoded = encode_meta(members)
    assert json.loads(encoded or b"{}") == members
    assert encoded == encode_meta(json.dumps(members)) == encode_meta(json.dumps(members).encode())


def test_the_largest_is_taken_and_one_more_is_not() -> None:
    full = {f"n{n}": n for n in range(META_MEMBERS_MAX)}
    assert encode_meta(full) is not None
    assert encode_meta({"n" * 64: ""}) is not None
    exact = {"a": "x" * (META_BYTES_MAX - len('{"a":""}'))}
    assert len(encode_meta(exact) or b"") == META_BYTES_MAX
    for more in ({**full, "more": 1}, {"n" * 65: 1}, {"a": exact["a"] + "x"}):
        with pytest.raises(InvalidEvent, match=r"at most|1 to 64"):
            encode_meta(more)


@pytest.mark.parametrize(
    "value",
    [
        [],
        7,
        [("a", 1)],
        {1: 1},
        {"": 1},
        {"a-b": 1},
        {"a.b": 1},
        {"1a": 1},
        {"é": 1},
        {"a\n": 1},
        {"a": None},
        {"a": [1]},
        {"a": {}},
        {"a": b"x"},
        {"a": "\ud800"},
        {"a": 1 << 64},
        {"a": float("nan")},
        {"a": float("inf")},
        "",
        "null",
        "[]",
        '"x"',
        "{",
        '{"a":1,"a":2}',
        '{"a":1,"\\u0061":2}',
        '{"a":18446744073709551616}',
        '{"a":1e999}',
        "\ud800",
        b"\xff",
        "[" * 20_000,
        '{"a":' * 4000,
        '{"a":"' + "x" * 30_000 + '"}',
    ],
    ids=range(32),
)
def test_whatever_else_is_refused_and_says_meta(value: object) -> None:
    with pytest.raises(InvalidEvent) as caught:
        Event("a", meta=value)  # type: ignore[arg-type]
    assert caught.value.field == "meta"


def test_an_empty_object_is_none() -> None:
    assert Event("a", meta={}).meta is Event("a", meta="{ }").meta is Event("a").meta is None
