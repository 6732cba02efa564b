"""An event is validated once, at the edge, and names the field that is wrong."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsse._core import encode_frame
from fastsse.errors import BadRequest, InvalidEvent
from fastsse.events import Event
from tests.eventstream import parse

# Among them what ends a line, what could, and what is almost nothing.
pieces = st.sampled_from(["\n", "\r", "\0", ":", " ", "data: x", "\ufeff", "\u2028", "\x85", "é"])
texts = st.lists(pieces | st.text(max_size=3), max_size=5).map("".join)
values = texts | texts.map(lambda text: text.encode("utf-8", "surrogatepass"))


def refused(**fields: object) -> InvalidEvent:
    with pytest.raises(InvalidEvent) as caught:
        Event(**({"topics": "a"} | fields))  # type: ignore[arg-type]
    return caught.value


def test_event_keeps_what_it_was_given_as_bytes() -> None:
    event = Event(["a", "b", "a"], "héllo", event="tick", id="n 1", retry=2500)
    assert event.topics == ("a", "b")
    assert event.data == "héllo".encode()
    assert (event.event, event.id, event.retry_ms, event.private) == (b"tick", b"n 1", 2500, False)


def test_defaults_leave_the_fields_out() -> None:
    event = Event("a")
    assert (event.data, event.event, event.id, event.retry_ms) == (b"", None, None, 0)
    assert Event("a", event="").event is None


@pytest.mark.parametrize(
    "topic", ["a", "a b", "ä/ö", "x" * 1024, "é" * 512, "*", "日本", "a$", "{id}"]
)
def test_names_that_are_topics(topic: str) -> None:
    assert Event(topic).topics == (topic,)


@pytest.mark.parametrize(
    "topic",
    ["", "x" * 1025, "é" * 513, "$sys", "a\x00", "a\n", "\x7f", "a\x85b", "\x9f", "\ud800", "\t"],
)
def test_names_that_are_not_topics_are_refused(topic: str) -> None:
    assert refused(topics=topic).field == "topic"
    assert refused(topics=["fine", topic]).field == "topic"


@pytest.mark.parametrize("topics", [[], ["a"] * 101, None, 5, ["a", 5], [None], b"a", [b"a"], {}])
def test_topics_that_are_no_list_of_1_to_100_names_are_refused(topics: object) -> None:
    assert refused(topics=topics).field == "topic"


@pytest.mark.parametrize("data", [b"\xff", b"\xed\xa0\x80", "\ud800", None, 5, bytearray(b"x")])
def test_data_that_is_not_utf8_is_refused(data: object) -> None:
    assert refused(data=data).field == "data"


@pytest.mark.parametrize(
    "event", ["a\nb", "a\rb", "a\0", "x" * 257, "fastsse.gap", "fastsse.", 5, b"\xff", "\ud800"]
)
def test_event_types_that_break_a_stream_or_are_reserved_are_refused(event: object) -> None:
    assert refused(event=event).field == "event"


@pytest.mark.parametrize(
    "own_id",
    [
        *("", " ", "\t ", "a\nb", "a\r", "\0", "\x01", "\x7f", "x" * 257, 5, b"\xff", "\ud800"),
        *("1-1", "007-00", " 1-1 ", f"{10**40}-1", "earliest", " earliest"),
    ],
)
def test_ids_that_could_not_be_resumed_from_are_refused(own_id: object) -> None:
    assert refused(id=own_id).field == "id"


@pytest.mark.parametrize("own_id", ["a", "x" * 256, '"<[ {', "é", "-1", "1-", "1-1-1", "Earliest"])
def test_other_ids_are_the_publishers_own(own_id: str) -> None:
    assert Event("a", id=own_id).id == own_id.encode()


@pytest.mark.parametrize(
    ("retry", "expected_ms"),
    [
        *((0, 1000), (1, 1000), (2500, 2500), ("2500", 2500), (b"007000", 7000)),
        *((10**30, 3_600_000), ("9" * 5000, 3_600_000), ("0" * 5000, 1000)),
    ],
)
def test_retry_is_clamped_between_a_second_and_an_hour(retry: object, expected_ms: int) -> None:
    assert Event("a", retry=retry).retry_ms == expected_ms  # type: ignore[arg-type]


@pytest.mark.parametrize("retry", [-1, "-1", "+1", "1.5", "", "\u0661", " 1", 1.5, True, b"\xff"])
def test_retry_that_is_not_digits_is_refused(retry: object) -> None:
    assert refused(retry=retry).field == "retry"


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["data", "event", "id"]), values))
def test_whatever_is_accepted_is_one_event_on_the_wire(fields: dict[str, str | bytes]) -> None:
    try:
        event = Event("topic", **fields)  # type: ignore[arg-type]
    except BadRequest:
        return
    frame = encode_frame(event.data, event.event, event.id, event.retry_ms, 0)
    messages = parse(b"data: before\n\n" + frame.body + b"data: after\n\n").events
    assert [message.type for message in messages[1:-1]] == [(event.event or b"message").decode()]
    assert [messages[0].data, messages[-1].data] == ["before", "after"]


def test_errors_name_the_field_and_what_is_allowed() -> None:
    error = refused(event="a\nb")
    assert (error.status, error.field) == (400, "event")
    assert "CR, LF or NUL" in error.detail
    assert str(error).startswith("event: ")
