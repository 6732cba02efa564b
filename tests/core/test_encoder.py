"""The encoder against the standard's parser: what is published is what every client reads."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsse import _core
from tests.eventstream import parse

line_enders = st.sampled_from(["\r", "\n", "\r\n", "\x00", "\ufeff", "\u2028", "\u0085", "", ":"])
texts = st.lists(st.one_of(line_enders, st.text(st.characters(exclude_categories=["Cs"])))).map(
    "".join
)
field_texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\x00"), min_size=1
)


def joined(data: str) -> str:
    """What a client makes of it: every line end is one LF."""
    return data.replace("\r\n", "\n").replace("\r", "\n")


@given(data=texts, event=st.none() | field_texts, id=st.none() | field_texts)
def test_any_data_comes_out_as_exactly_one_event(
    data: str, event: str | None, id: str | None
) -> None:
    events = parse(_core.encode(data, event=event, id=id)).events
    assert [(e.data, e.type, e.last_event_id) for e in events] == [
        (joined(data), event or "message", id or "")
    ]


@pytest.mark.parametrize("break_", ["\r", "\n", "\r\n", "\x00"])
@pytest.mark.parametrize("field", ["event", "id"])
@pytest.mark.parametrize("shape", ["{}", "a{}b", "a{}", "{}data: x"])
def test_a_field_that_would_end_its_line_is_refused(field: str, break_: str, shape: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must not hold CR, LF or NUL"):
        _core.encode("x", **{field: shape.format(break_)})


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        ("", ["data: "]),
        ("a", ["data: a"]),
        ("a\n", ["data: a", "data: "]),
        ("a\r\nb\rc\nd", ["data: a", "data: b", "data: c", "data: d"]),
        ("\n\r", ["data: ", "data: ", "data: "]),
        ("\r\r\n", ["data: ", "data: ", "data: "]),
        (" a", ["data:  a"]),
    ],
)
def test_cr_lf_and_crlf_each_end_a_line(data: str, lines: list[str]) -> None:
    assert _core.encode(data) == ("\n".join(lines) + "\n\n").encode()


def test_fields_come_in_the_order_event_retry_id_data() -> None:
    assert (
        _core.encode("x", event="tick", id="7-1", retry=250)
        == b"event: tick\nretry: 250\nid: 7-1\ndata: x\n\n"
    )


@pytest.mark.parametrize("data", ["x" * (1 << 20), "\n" * (1 << 20), "\r\n" * (1 << 19)])
def test_a_mebibyte_of_data_is_one_event(data: str) -> None:
    # The standard's rules at this size, by replacement: the parser goes character by character.
    lines = joined(data).split("\n")
    want = "".join(f"data: {line}\n" for line in lines) + "\n"
    assert _core.encode(data) == want.encode()


@pytest.mark.parametrize("value", [b"\xff", b"\xed\xa0\x80", "\ud800"])
def test_what_is_not_utf_8_is_refused_in_every_field(value: str | bytes) -> None:
    for field in ("data", "event", "id"):
        with pytest.raises(ValueError, match="codec"):
            _core.encode(**{"data": "x", field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("retry", [-1, True, 1.5, "3"])
def test_a_retry_that_is_no_whole_number_is_refused(retry: object) -> None:
    with pytest.raises(ValueError, match="retry"):
        _core.encode("x", retry=retry)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, 1, ["x"], bytearray(b"x")])
def test_data_of_another_type_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="data must be str or bytes"):
        _core.encode(value)  # type: ignore[arg-type]


def test_a_frame_is_a_chunk_around_its_body() -> None:
    frame = _core.encode_frame(b"x" * 300, None, None, 0, (5 << 64) | 9)
    assert frame.wire == b"%x\r\n%s\r\n" % (frame.size, frame.body)
    assert frame.position == (5 << 64) | 9
    assert frame.events == 1


@pytest.mark.parametrize("size", [1, 15, 16, 255, 256, 4095, 4096, 65_535, 65_536, 1 << 20])
def test_the_length_of_a_chunk_has_no_zero_in_front(size: int) -> None:
    body = b"x" * size
    assert _core.load_frame(body, 1, False).wire == b"%x\r\n%b\r\n" % (size, body)


def test_frames_are_counted_while_something_holds_them() -> None:
    before = _core.native_frames_alive()
    frames = [_core.encode_frame(b"x", None, None, 0, n) for n in range(3)]
    for left in (3, 2, 1, 0):
        assert _core.native_frames_alive() == before + left
        del frames[:1]


@pytest.mark.parametrize("size", [1, 15, 16, 300, 5_000])
def test_the_counted_memory_of_a_frame_is_its_bytes_and_one_header(size: int) -> None:
    before = _core.native_bytes_held()
    headers = set()
    for make in (_core.raw_frame, _core.wire_frame):
        frame = make(b"x" * size)
        headers.add(_core.native_bytes_held() - before - len(frame.wire))
        del frame
        assert _core.native_bytes_held() == before
    assert len(headers) == 1


def test_a_wire_frame_is_its_bytes_alone() -> None:
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    frame = _core.wire_frame(head)
    assert (frame.wire, frame.body, frame.size) == (head, head, len(head))


@pytest.mark.parametrize("make", [_core.raw_frame, _core.wire_frame])
def test_a_frame_of_ready_bytes_is_no_event_and_has_no_place(
    make: Callable[[bytes], _core.Frame],
) -> None:
    # So many that they do not all lie where others have just been freed.
    frames = [_core.encode_frame(b"x" * 900, b"e", b"7-1", 9, 9 << 64 | 9, True) for _ in range(99)]
    del frames
    for frame in [make(b":x\n\n") for _ in range(999)]:
        assert (frame.events, frame.position, frame.time_ms, frame.expires_ms) == (0, 0, 0, 0)
        assert (frame.private, frame.data_kind) == (False, 0)


def test_a_control_entry_of_an_empty_comment_is_no_notice() -> None:
    view = _core.View(notices=True)
    silent, said = _core.raw_frame(b":\n\n"), _core.raw_frame(b":x\n\n")
    assert (silent.events, said.events) == (0, 0)
    sent, is_over = view.select([silent, said], [("t",), ("t",)], None)
    assert ([frame.body for frame in sent], is_over) == ([said.body], False)


def test_a_page_is_one_chunk_of_many_bodies_with_the_last_position() -> None:
    frames = [_core.encode_frame(b"%d" % n, None, None, 0, n) for n in range(5)]
    page = _core.join_frames(frames, 1, 4)
    assert page.body == b"".join(frame.body for frame in frames[1:4])
    assert (page.events, page.position) == (3, 3)


def test_a_page_has_place_and_time_of_its_last_event_and_expires_with_its_first() -> None:
    def frame(n: int, expires_ms: int = 0, events: bool = True) -> _core.Frame:
        body = b"data: %d\n\n" % n
        return _core.load_frame(body, n << 64 | n + 1, False, 10 * n, events, 0, expires_ms)

    for expiries, first in (
        ((0, 0, 0), 0),
        ((7, 0, 0), 7),
        ((0, 0, 7), 7),
        ((8, 7, 0), 7),
        ((7, 8, 9), 7),
        ((9, 8, 7), 7),
        ((7, 7, 0), 7),
    ):
        page = _core.join_frames([frame(n, one) for n, one in enumerate(expiries, 1)])
        assert (page.position, page.time_ms, page.expires_ms) == (3 << 64 | 4, 30, first)
    several = _core.join_frames([frame(1), frame(2, events=False), page])
    assert several.events == 4
    assert several.body == frame(1).body + frame(2).body + page.body
    assert several.wire == b"%x\r\n%b\r\n" % (several.size, several.body)


def test_a_gibibyte_of_an_event_or_of_a_page_is_refused() -> None:
    frame = _core.raw_frame(b"x" * (1 << 20))
    with pytest.raises(ValueError, match="1 GiB"):
        _core.join_frames([frame] * 1024 + [_core.raw_frame(b"x")])
    with pytest.raises(ValueError, match="1 GiB"):
        _core.encode_frame(bytes(1 << 30), None, None, 0, 1)


@pytest.mark.parametrize("make", [_core.raw_frame, _core.wire_frame])
def test_an_empty_frame_is_refused_since_it_would_end_the_stream(make: type) -> None:
    with pytest.raises(ValueError, match=r"at least one|empty chunk"):
        make(b"")


def test_a_page_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        _core.join_frames([])
    with pytest.raises(TypeError):
        _core.join_frames([b"x"])  # type: ignore[list-item]


def test_a_frame_is_not_made_by_hand() -> None:
    with pytest.raises(TypeError, match="encode_frame"):
        _core.Frame()


@given(data=texts, position=st.integers(0, (1 << 128) - 1), private=st.booleans())
def test_a_frame_that_was_carried_over_is_the_same_frame(
    data: str, position: int, private: bool
) -> None:
    frame = _core.encode_frame(data.encode(), b"tick", b"7-1", 5, position, private)
    carried = _core.load_frame(frame.body, frame.position, frame.private)
    assert (carried.wire, carried.position, carried.private, carried.events) == (
        frame.wire,
        position,
        private,
        1,
    )


def test_a_frame_is_public_unless_it_says_otherwise() -> None:
    assert not _core.encode_frame(b"x", None, None, 0, 1).private
    assert not _core.raw_frame(b"x\n\n").private


def test_an_empty_frame_or_one_out_of_the_order_is_not_loaded() -> None:
    with pytest.raises(ValueError, match="empty chunk"):
        _core.load_frame(b"", 1, False)
    for position in (-1, 1 << 128):
        with pytest.raises(OverflowError):
            _core.load_frame(b"x\n\n", position, False)
    with pytest.raises(TypeError):
        _core.load_frame("x", 1, False)  # type: ignore[arg-type]
