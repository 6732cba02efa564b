"""Content: whatever is appended is read back to the byte, and never breaks an event stream."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsse.entries import encode_entries
from fastsse.errors import InvalidEvent
from fastsse.events import DATA_BYTES, DATA_JSON, DATA_TEXT, Event
from fastsse.streamoffsets import format_offset
from fastsse.streams.content import (
    Content,
    control_block,
    data_block,
    data_of,
    messages_of,
    pieces_of,
    rendered,
)
from fastsse.streamstate import StreamConfig
from tests.eventstream import parse

TEXT, JSON, BYTES = (
    StreamConfig(kind) for kind in ("text/plain", "application/json", "application/x-protobuf")
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def read_back(config: StreamConfig, body: bytes) -> bytes:
    events = [Event("s", data, data_kind=kind) for data, kind in pieces_of(config, body)]
    entries = encode_entries(range(1, 1 + len(events)), events)
    return rendered(config, [Content(one.position, data_of(one.frame)) for one in entries])


@given(st.binary(min_size=1) | st.text(min_size=1).map(str.encode))
def test_bytes_are_read_back_as_they_were_appended(body: bytes) -> None:
    assert read_back(TEXT, body) == body
    assert read_back(BYTES, body) == body


@given(json_values, st.sampled_from([None, 2]))
def test_messages_are_read_back_as_one_array(value: object, indent: int | None) -> None:
    body = json.dumps(value, indent=indent).replace("\n", "\r\n").encode()
    wanted = value if isinstance(value, list) else [value]
    assert json.loads(read_back(JSON, body)) == wanted


def test_numbers_keep_their_digits() -> None:
    assert messages_of(b"[12345678901234567890, 1.50, [1,2]]") == [
        b"12345678901234567890",
        b"1.50",
        b"[1,2]",
    ]


@pytest.mark.parametrize("body", [b"{", b"NaN", b"[1,]", b"", b"\xff", b"[1][2]"])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidEvent, match="JSON"):
        messages_of(body)


def test_content_is_kept_in_the_form_that_other_readers_can_use() -> None:
    assert pieces_of(TEXT, b"a\nb")[0].kind == DATA_TEXT
    assert pieces_of(TEXT, b"a\r\nb")[0].kind == DATA_BYTES
    assert pieces_of(TEXT, b"\xc3")[0].kind == DATA_BYTES
    assert pieces_of(JSON, b"[1, 2]") == [(b"1", DATA_JSON), (b"2", DATA_JSON)]
    assert pieces_of(BYTES, b"ab")[0] == (b"YWI=", DATA_BYTES)


@given(st.text(max_size=60))
def test_no_text_can_forge_an_event(text: str) -> None:
    block = data_block(TEXT, [Content(1, text.encode())]) + control_block(1, "7")
    data, control = parse(block).events
    wanted = text.replace("\r\n", "\n").replace("\r", "\n")
    assert (data.type, data.data) == ("data", wanted)
    assert json.loads(control.data)["streamNextOffset"] == format_offset(1)


def test_several_messages_are_one_array_behind_one_event() -> None:
    block = data_block(JSON, [Content(1, b'{"a":1}'), Content(2, b"2")])
    (event,) = parse(block).events
    assert json.loads(event.data) == [{"a": 1}, 2]
