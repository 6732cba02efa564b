"""Frames come out as they went in, however they are cut on the way; nothing else comes out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsse.bus.frames import (
    BUFFER_BYTES,
    HELLO_BYTES_MAX,
    Fields,
    FrameError,
    FrameKind,
    Incoming,
    blob,
    frame,
    pack_position,
    text,
)


def fed(incoming: Incoming, data: bytes, step: int) -> list[tuple[int, bytes]]:
    """The frames that come out when so many bytes arrive at a time."""
    found = []
    while data:
        room = incoming.room()
        part, data = data[: min(step, len(room))], data[min(step, len(room)) :]
        room[: len(part)] = part
        incoming.filled(len(part))
        while (one := incoming.take()) is not None:
            found.append(one)
    return found


@given(
    bodies=st.lists(st.binary(max_size=300), max_size=20),
    step=st.integers(min_value=1, max_value=700),
)
def test_frames_are_cut_out_wherever_the_bytes_are_cut(bodies: list[bytes], step: int) -> None:
    sent = [(FrameKind.BATCH, body) for body in bodies]
    wire = b"".join(frame(kind, body) for kind, body in sent)
    assert fed(Incoming(), wire, step) == sent


@pytest.mark.parametrize("size", [BUFFER_BYTES - 5, BUFFER_BYTES - 4, BUFFER_BYTES, 1_000_003])
def test_a_frame_longer_than_the_buffer_arrives_whole(size: int) -> None:
    sent = [
        (FrameKind.LOG, b"a"),
        (FrameKind.LOG, bytes(size)),
        (FrameKind.BEAT, b""),
        (FrameKind.LOG, b"z" * 9),
    ]
    wire = b"".join(frame(kind, body) for kind, body in sent)
    assert fed(Incoming(1 << 20), wire, 65_536) == sent


def test_a_frame_longer_than_allowed_is_refused_before_it_arrives() -> None:
    incoming = Incoming()
    assert fed(incoming, frame(FrameKind.HELLO, bytes(HELLO_BYTES_MAX)), 8192)
    with pytest.raises(FrameError, match="1025 bytes where 1024"):
        fed(incoming, frame(FrameKind.HELLO, bytes(HELLO_BYTES_MAX + 1))[:5], 5)


def test_fields_come_back_as_they_were_packed() -> None:
    fields = Fields(pack_position(1 << 100) + text("né") + blob(b"xyz") + b"\7\1\0rest")
    assert fields.position() == 1 << 100
    assert fields.text() == "né"
    assert fields.blob(3) == b"xyz"
    assert (fields.u8(), fields.u16()) == (7, 1)
    assert fields.rest() == b"rest"
    fields.end()


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (b"", Fields.u8),
        (b"\1\2\3", Fields.u32),
        (bytes(15), Fields.position),
        (b"\5\0abcd", Fields.text),
        (b"\2\0\xff\xff", Fields.text),
        (b"\5\0abcde", lambda fields: fields.text(4)),
        (b"\4\0\0\0abc", lambda fields: fields.blob(10)),
        (b"\4\0\0\0abcd", lambda fields: fields.blob(3)),
        (b"left", Fields.end),
    ],
)
def test_a_body_that_holds_something_else_is_refused(body: bytes, read: object) -> None:
    with pytest.raises(FrameError):
        read(Fields(body))  # type: ignore[operator]


def test_text_that_is_too_long_is_cut_between_characters() -> None:
    assert Fields(text("é" * 40_000)).text() == "é" * 32_767
