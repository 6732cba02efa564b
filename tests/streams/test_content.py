"""Content: whatever is appended is read back to the byte, and never breaks an event stream."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsse._content import take_content
from fastsse._core import Frame
from fastsse.entries import encode_entries
from fastsse.errors import InvalidEvent
from fastsse.events import DATA_BYTES, DATA_JSON, DATA_TEXT, Event
from fastsse.streamoffsets import format_offset
from fastsse.streams.content import (
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


def frames_of(config: StreamConfig, body: bytes, **fields: object) -> list[Frame]:
    events = [Event("s", data, data_kind=kind, **fields) for data, kind in pieces_of(config, body)]
    return [entry.frame for entry in encode_entries(range(1, 1 + len(events)), events)]


def read_back(config: StreamConfig, body: bytes) -> bytes:
    return rendered(config, frames_of(config, body))


@given(st.binary(min_size=1) | st.text(min_size=1).map(str.encode))
def test_bytes_are_read_back_as_they_were_appended(body: bytes) -> None:
    assert read_back(TEXT, body) == body
    assert read_back(BYTES, body) == body


@given(json_values, st.sampled_from([None, 2]))
def test_messages_are_read_back_as_one_array(value: object, indent: int | None) -> None:
    body = json.dumps(value, indent=indent).replace("\n", "\r\n").encode()
    wanted = value if isinstance(value, list) else [value]
    assert json.loads(read_back(JSON, body)) == wanted


@given(st.text(), st.text("abc", min_size=1), st.sampled_from([None, 1500]))
def test_text_is_read_back_whatever_else_its_event_has(text, name, retry) -> None:
    event = Event("s", text.replace("\r", "\n"), event=name, id=name, retry=retry)
    (entry,) = encode_entries([7], [event])
    assert data_of(entry.frame) == text.replace("\r", "\n").encode()


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=9), st.integers(1, 200))
def test_a_page_is_full_once_and_has_all_in_order(bodies: list[bytes], room: int) -> None:
    frames = [frame for body in bodies for frame in frames_of(BYTES, body)]
    read: list[bytes] = []
    while len(read) < len(frames):
        taken: list[Frame] = []
        left = take_content(frames[len(read) :], 1 << 100, room, taken)
        assert taken
        assert len(taken) == 1 or sum(frame.size for frame in taken) * 3 // 4 <= room + len(taken)
        assert left <= 0 or len(read) + len(taken) == len(frames)
        read += map(data_of, taken)
    assert read == bodies
    assert take_content(frames, 0, room, []) == room


@given(st.lists(st.integers(0, 70), max_size=12), st.text("d: \n", max_size=9))
def test_lines_of_any_length_are_read_back(lengths: list[int], end: str) -> None:
    body = "\n".join(("data: x" * 10)[:length] for length in lengths) + end
    (entry,) = encode_entries([7], [Event("s", body)])
    assert data_of(entry.frame) == body.encode()


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
    block = data_block(TEXT, frames_of(TEXT, text.encode())) + control_block(1, "7")
    data, control = parse(block).events
    wanted = text.replace("\r\n", "\n").replace("\r", "\n")
    assert (data.type, data.data) == ("data", wanted)
    assert json.loads(control.data)["streamNextOffset"] == format_offset(1)


def test_several_messages_are_one_array_behind_one_event() -> None:
    block = data_block(JSON, frames_of(JSON, b'[{"a":1}, 2]'))
    (event,) = parse(block).events
    assert json.loads(event.data) == [{"a": 1}, 2]
