"""Records bring back what was packed, to the last byte, and nothing that was cut or damaged."""

import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsse._batch import EventBatch, SharedFields
from fastsse._core import load_frame
from fastsse._records import crc32c
from fastsse.directives import NO_NOTICE, Directives, Producer, RequestKey, directives_of
from fastsse.entries import (
    Extras,
    encode_entries,
    id_of,
    pack_entry,
    pack_events,
    unpack_entries,
    unpack_entries_1,
    unpack_events,
)
from fastsse.events import DATA_BYTES, DATA_JSON, DATA_TEXT, Event
from fastsse.positions import position_at
from fastsse.streamstate import StreamAsk
from tests.hub.backbone_contract import EVERY_FIELD, same

POSITIONS = [position_at(1_700_000_000_000) + 7, position_at((1 << 63) - 1) + (1 << 64) - 1]
EVENTS = [EVERY_FIELD, Event(["é" * 512, *map(str, range(99))], b"", id_style="uuid")]

values = st.text(max_size=50) | st.integers(-(1 << 63), (1 << 64) - 1) | st.booleans()
names = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=20)
drafts = st.builds(
    Event,
    st.lists(names.filter(lambda name: name[0] != "$"), min_size=1, max_size=5),
    st.binary(max_size=300).map(lambda data: data.decode("latin-1")),
    st.none() | st.sampled_from(["tick", "é"]),
    st.none() | st.sampled_from(["urn:uuid:1", 'a "b" [c]']),
    st.none() | st.integers(0, 10_000_000),
    st.booleans(),
    st.sampled_from(["position", "uuid"]),
    st.none()
    | st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]{0,20}", fullmatch=True), values, max_size=8),
    st.sampled_from([DATA_TEXT, DATA_JSON, DATA_BYTES]),
)


def same_event(left: Event, right: Event) -> bool:
    return all(getattr(left, name) == getattr(right, name) for name in Event.__slots__)


@given(st.lists(drafts, min_size=1, max_size=5))
def test_entries_and_drafts_come_back_as_they_were(events: list[Event]) -> None:
    entries = encode_entries(range(POSITIONS[0], POSITIONS[0] + len(events)), events)
    again = unpack_entries(b"".join(map(pack_entry, entries)))
    assert len(again) == len(entries)
    assert all(map(same, again, entries))
    drafts = unpack_events(memoryview(pack_events(events)))
    assert len(drafts) == len(events)
    assert all(map(same_event, drafts, events))


def test_the_largest_fields_fit() -> None:
    entries = encode_entries(POSITIONS, EVENTS)
    assert all(map(same, unpack_entries(b"".join(map(pack_entry, entries))), entries))
    assert all(map(same_event, unpack_events(pack_events(EVENTS)), EVENTS))


def test_nothing_is_no_record() -> None:
    assert unpack_entries(b"") == []
    assert list(unpack_events(b"")) == []


def test_records_that_were_cut_are_refused_wherever_they_were() -> None:
    entry = pack_entry(encode_entries(POSITIONS[:1], EVENTS[:1])[0])
    draft = pack_events(EVENTS[:1])
    for end in range(1, len(entry)):
        with pytest.raises(ValueError, match="record"):
            unpack_entries(entry + entry[:end])
    for end in range(1, len(draft)):
        with pytest.raises(ValueError, match="record"):
            unpack_events(draft + draft[:end])


@given(st.data())
def test_a_record_with_any_flipped_bits_is_refused(data: st.DataObject) -> None:
    record = bytearray(pack_entry(encode_entries(POSITIONS[:1], EVENTS[:1])[0]))
    drafts = bytearray(pack_events(EVENTS))
    for buffer, unpack in ((record, unpack_entries), (drafts, unpack_events)):
        bits = st.lists(st.integers(0, len(buffer) * 8 - 1), min_size=1, max_size=20, unique=True)
        for bit in data.draw(bits):
            buffer[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match="record"):
            unpack(buffer)


def test_every_single_flipped_bit_is_found() -> None:
    record = pack_entry(encode_entries(POSITIONS[:1], [Event("a", "b", private=True)])[0])
    for bit in range(len(record) * 8):
        damaged = bytearray(record)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match="record"):
            unpack_entries(damaged)


@given(st.binary(max_size=200), st.booleans())
def test_bytes_that_are_no_record_are_refused(noise: bytes, is_sealed: bool) -> None:
    """Also those whose length and checksum are right: absurd numbers in them are read as such."""
    if is_sealed:
        noise = sealed(noise)
    for unpack in (unpack_entries, unpack_events, unpack_entries_1):
        try:
            unpack(noise)
        except ValueError:
            continue
        assert not noise or is_sealed


def sealed(body: bytes) -> bytes:
    """A record of any content with its length and checksum."""
    return struct.pack("<II", 4 + len(body), crc32c(body)) + body


def entry_of(fields: bytes, fields_bytes: int | None = None) -> bytes:
    """An entry's record with these bytes for its fields."""
    size = len(fields) if fields_bytes is None else fields_bytes
    head = struct.pack("<QQBBBBI", 5, 7, 0, 0, 1, 0, size)
    return sealed(head + b"\1\0a" + fields + b"data: x\n\n")


def field(tag: int, value: bytes, size: int | None = None) -> bytes:
    return struct.pack("<BI", tag, len(value) if size is None else size) + value


def test_fields_of_unknown_tags_are_skipped() -> None:
    (entry,) = unpack_entries(entry_of(field(2, b"mine") + field(77, b"?") + field(255, b"")))
    assert (entry.position, entry.topics, entry.own_id) == ((5 << 64) | 7, ("a",), b"mine")
    assert entry.extras is None
    assert entry.frame.body == b"data: x\n\n"


@pytest.mark.parametrize(
    "record",
    [
        entry_of(field(2, b"a") + field(2, b"b")),  # A tag stands twice.
        entry_of(field(3, b"12345678") + field(2, b"b")),  # Tags fall.
        entry_of(field(0, b"")),
        entry_of(field(1, b"1234567")),  # A number of seven bytes.
        entry_of(field(2, b"a", size=0xFFFFFFFF)),
        entry_of(field(2, b"a", size=2)),
        entry_of(b"\2\0"),
        entry_of(b"", fields_bytes=0xFFFFFFFF),
        sealed(struct.pack("<QQBBBBI", 1 << 63, 7, 0, 0, 1, 0, 0) + b"\1\0a\n\n"),
        sealed(struct.pack("<QQBBBBI", 5, 7, 2, 0, 1, 0, 0) + b"\1\0a\n\n"),  # Unknown kind.
        sealed(struct.pack("<QQBBBBI", 5, 7, 0, 2, 1, 0, 0) + b"\1\0a\n\n"),  # Unknown flag.
        sealed(struct.pack("<QQBBBBI", 5, 7, 0, 0, 0, 0, 0) + b"\n\n"),  # No topic.
        sealed(struct.pack("<QQBBBBI", 5, 7, 0, 0, 1, 0, 0) + b"\xff\xff"),
        sealed(struct.pack("<QQBBBBI", 5, 7, 0, 0, 1, 0, 0) + b"\1\0a"),  # No blank line.
        sealed(struct.pack("<QQBBBBI", 5, 7, 0, 0, 1, 0, 0) + b"\1\0a\n"),
        sealed(struct.pack("<QQBBBBI", 5, 7, 0, 0, 1, 1, 0) + b"\1\0a\n\n"),  # Must be 0.
        sealed(struct.pack("<QQBBBBI", 5, 7, 0, 0, 101, 0, 0) + b"\1\0a" * 101 + b"\n\n"),
    ],
)
def test_sealed_records_that_say_what_cannot_be_are_refused(record: bytes) -> None:
    with pytest.raises(ValueError, match="record"):
        unpack_entries(record)


def test_optional_fields_come_back_as_they_were() -> None:
    (plain,) = encode_entries(POSITIONS[:1], [Event("a", "x", id="mine", private=True)])
    extras = Extras(1 << 60, b"tick", b"\0raw", b"key", b"{}", b"00-ab-cd-01")
    for sent in (extras, Extras(meta=b""), Extras(control=b"end"), Extras(7, control=b"")):
        entry = plain._replace(extras=sent)
        (again,) = unpack_entries(pack_entry(entry))
        assert again.extras == sent
        assert again[:3] == entry[:3]
        assert again.frame.private
        is_control = sent.control is not None
        assert again.frame.events == (0 if is_control else 1)
        assert again.frame.body == (b":\n\n" if is_control else entry.frame.body)


def test_the_time_is_kept_apart_from_the_position() -> None:
    position = position_at(10_000) + 1
    entries = encode_entries([position, position + 1], [Event("a")] * 2, [10_000, 9_000])
    assert [entry.frame.time_ms for entry in entries] == [10_000, 9_000]
    assert [entry.frame.lead_ms for entry in entries] == [0, 1_000]
    packed = list(map(pack_entry, entries))
    again = unpack_entries(b"".join(packed))
    assert [entry.frame.time_ms for entry in again] == [10_000, 9_000]
    assert len(packed[1]) - len(packed[0]) == 13, "a time costs bytes only where it is apart"
    (same_time,) = encode_entries([position], [Event("a")], 8_000)
    assert same_time.frame.time_ms == 8_000
    with pytest.raises(ValueError, match="times"):
        encode_entries([position], [Event("a")], [1, 2])


def test_records_of_format_1_are_read() -> None:
    private = (
        b"\x27\0\0\0" + struct.pack("<QQBB", 5, 7, 3, 2) + b"\1\0a\2\0bc" + b"\4\0minedata: x\n\n"
    )
    private = struct.pack("<I", len(private) - 4) + private[4:]
    (entry,) = unpack_entries_1(private)
    assert entry[:3] == ((5 << 64) | 7, ("a", "bc"), b"mine")
    assert (entry.frame.private, entry.frame.time_ms, entry.extras) == (True, 5, None)
    for end in range(1, len(private)):
        with pytest.raises(ValueError, match="record"):
            unpack_entries_1(private[:end])
    with pytest.raises(ValueError, match="record"):
        unpack_entries(private)


def test_a_draft_is_validated_again() -> None:
    record = pack_events([Event("abc", "x", event="tick")])
    for whole, broken, why in (
        (b"tick", b"ti\nk", "CR, LF"),
        (b"abc", b"$bc", "reserved"),
        (b"abc", b"\xffbc", "decode"),
    ):
        with pytest.raises(ValueError, match=why):
            unpack_events(sealed(record[8:].replace(whole, broken)))
        with pytest.raises(ValueError, match="record"):
            unpack_events(record.replace(whole, broken))


def draft_of(
    flags: int = 0,
    count: int = 1,
    kind: int = 0,
    spare: int = 0,
    retry_ms: int = 0,
    rest: bytes = b"",
) -> bytes:
    """A draft's record without fields."""
    head = struct.pack("<BBBBII", flags, count, kind, spare, retry_ms, 0)
    return sealed(head + (rest or b"\1\0ax"))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"flags": 2}, "damaged"),
        ({"flags": 16}, "damaged"),
        ({"kind": 3}, "damaged"),
        ({"spare": 1}, "damaged"),
        ({"count": 0}, "0 topics"),
        ({"count": 101}, "101 topics"),
        ({"count": 2}, "cut"),
        ({"rest": b"\1"}, "cut"),
        ({"rest": b"\2\0a"}, "cut"),
    ],
)
def test_sealed_drafts_that_say_what_cannot_be_are_refused(given: dict[str, Any], why: str) -> None:
    assert len(unpack_events(draft_of())) == 1
    with pytest.raises(ValueError, match=why):
        unpack_events(draft_of(**given))


@pytest.mark.parametrize(
    ("topic", "problem"),
    [
        (b"", "topic"),
        (b"$a", "topic"),
        (b"a\x1f", "topic"),
        (b"a\x7f", "topic"),
        (b"\xc3", "decode"),
        (b"t" * 1025, "topic"),
        (b"t" * 1024, None),
        (b" ~", None),
        ("é".encode(), None),
    ],
)
def test_the_topic_of_a_plain_draft_is_checked(topic: bytes, problem: str | None) -> None:
    record = draft_of(rest=struct.pack("<H", len(topic)) + topic + b"x")
    if problem is not None:
        with pytest.raises(ValueError, match=problem):
            unpack_events(record)
        return
    (event,) = unpack_events(record)
    assert (event.topics, event.data) == ((topic.decode(),), b"x")


@pytest.mark.parametrize("at", range(18))
def test_the_data_of_a_plain_draft_is_utf_8(at: int) -> None:
    data = bytearray(b"x" * 18)
    data[at] = 0x80
    with pytest.raises(ValueError, match="UTF-8"):
        unpack_events(draft_of(rest=b"\1\0a" + data))
    data[at] = 0x7F
    (event,) = unpack_events(draft_of(rest=b"\1\0a" + data))
    assert event.data == data
    with pytest.raises(ValueError, match="UTF-8"):
        unpack_events(draft_of(rest=b"\1\0a" + b"\x80" * (at + 1)))


@pytest.mark.parametrize(
    ("retry_ms", "again_ms"),
    [
        (0, 0),
        (1, 1_000),
        (999, 1_000),
        (1_000, 1_000),
        (3_600_000, 3_600_000),
        (3_600_001, 3_600_000),
    ],
)
@pytest.mark.parametrize("flags", [0, 1, 8, 9])
def test_flags_and_bounded_retries_of_a_plain_draft_come_back(
    retry_ms: int, again_ms: int, flags: int
) -> None:
    (event,) = unpack_events(draft_of(flags, kind=1, retry_ms=retry_ms))
    assert (event.topics, event.data, event.data_kind) == (("a",), b"x", DATA_JSON)
    assert (event.retry_ms, event.private) == (again_ms, bool(flags & 1))
    assert event.id_style == ("uuid" if flags & 8 else "position")
    assert (event.event, event.id, event.meta, event.directives) == (None, None, None, None)


@given(st.lists(drafts, min_size=1, max_size=6))
def test_what_was_unpacked_is_packed_as_it_was(events: list[Event]) -> None:
    packed = pack_events(events)
    assert pack_events(unpack_events(packed)) == packed


ASKED: dict[str, Any] = {
    "control": b'{"op":"end"}',
    "key": b"mine",
    "expect": b"earliest",
    "request": RequestKey(b"whole", b"d" * 16, 3),
    "ttl_ms": 5_000,
    "producer": Producer(b"p" * 16, 7, 8, True),
    "stream": StreamAsk("append", 9 << 64 | 1, b"seq"),
}


@pytest.mark.parametrize("name", [*ASKED, "all"])
def test_what_a_draft_asks_comes_back(name: str) -> None:
    asked = ASKED if name == "all" else {name: ASKED[name]}
    directives = Directives()._replace(**asked)
    for others in ({}, {"event": "tick", "id": "own", "meta": {"x": 1}}):
        event = Event("a", "x", directives=directives, **others)  # type: ignore[arg-type]
        (again,) = unpack_events(pack_events([event]))
        assert same_event(again, event)
        assert again.directives == directives


def test_a_batch_in_columns_is_packed_as_its_events_are() -> None:
    shared = SharedFields(Event("a", event="tick", meta={"x": 1}, retry=2_000, private=True))
    named = SharedFields(Event("a", id_style="uuid"))
    batch = EventBatch()
    batch.add(("a",), b"plain")
    batch.add(("a", "b"), b"{}", DATA_JSON, shared)
    batch.add(("a",), b"own", 0, named, None)
    batch.add(("a",), b"asked", 0, None, b"mine", directives_of(ttl=5))
    batch.add(("a",), b"all", DATA_BYTES, shared, b"other", directives_of(key="k"))
    batch.append(Event("c", "whole", id="third"))
    packed = pack_events(batch)
    assert packed == pack_events(list(batch))
    assert packed == b"".join([pack_events([event]) for event in batch])
    assert all(map(same_event, unpack_events(packed), list(batch)))


@pytest.mark.parametrize(
    ("topics", "why"),
    [
        ((), "1 to 255 topics"),
        (tuple(map(str, range(256))), "1 to 255 topics"),
        (("t" * 0x10000,), "too long"),
    ],
)
def test_topics_that_fit_into_no_record_are_refused(topics: tuple[str, ...], why: str) -> None:
    (entry,) = encode_entries(POSITIONS[:1], [Event("a")])
    with pytest.raises(ValueError, match=why):
        pack_entry(entry._replace(topics=topics))
    pack_entry(entry._replace(topics=tuple(map(str, range(255)))))
    pack_entry(entry._replace(topics=("t" * 0xFFFF,)))


def test_an_entry_without_a_frame_is_refused() -> None:
    (entry,) = encode_entries(POSITIONS[:1], [Event("a")])
    with pytest.raises(TypeError, match="frame"):
        pack_entry(entry._replace(frame=None))  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "again"), [(1, 1), (2, 2), (3, 0), (255, 0), (256, 0)])
def test_a_data_kind_that_is_not_known_is_text(kind: int, again: int) -> None:
    (entry,) = unpack_entries(entry_of(field(5, struct.pack("<Q", kind))))
    assert entry.frame.data_kind == again
    assert entry.extras is None


def test_a_deleted_event_stays_deleted() -> None:
    (entry,) = encode_entries(POSITIONS[:1], [Event("a", "secret", private=True)])
    frame = load_frame(NO_NOTICE, entry.position, True, None, False)
    packed = pack_entry(entry._replace(frame=frame))
    (again,) = unpack_entries(packed)
    assert (again.frame.events, again.frame.private, again.extras) == (0, True, None)
    assert pack_entry(again) == packed


@pytest.mark.parametrize(
    ("head", "rest"),
    [
        ((5, 7, 4, 1), b"\1\0adata: x\n\n"),  # Unknown flag.
        ((1 << 63, 7, 0, 1), b"\1\0adata: x\n\n"),
        ((5, 7, 0, 0), b"data: x\n\n"),
        ((5, 7, 0, 101), b"\1\0a" * 101 + b"\n\n"),
        ((5, 7, 0, 1), b"\1\0adata: x\n"),
        ((5, 7, 0, 1), b"\1\0adata: x\n\r"),
        ((5, 7, 0, 1), b"\1\0a\n"),
    ],
)
def test_records_of_format_1_that_say_what_cannot_be_are_refused(
    head: tuple[int, ...], rest: bytes
) -> None:
    body = struct.pack("<QQBB", *head) + rest
    with pytest.raises(ValueError, match="record"):
        unpack_entries_1(struct.pack("<I", len(body)) + body)


@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.parametrize("unpack", [unpack_entries, unpack_events, unpack_entries_1, crc32c])
def test_a_buffer_is_given_back(unpack: Callable[[bytearray], object], is_cut: bool) -> None:
    buffer = bytearray(b"\xff\xff" if is_cut else b"")
    with suppress(ValueError):
        unpack(buffer)
    buffer += b"it can grow again"


# RFC 3720 B.4, and the check value of the polynomial's catalogue.
CRC32C = [
    (b"", 0),
    (b"123456789", 0xE3069283),
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(reversed(range(32))), 0x113FDB5C),
    (
        bytes.fromhex(
            "01c00000" + "00000000" * 3 + "14000000" + "00000400" + "00000014" + "00000018"
            "28000000" + "00000000" + "02000000" + "00000000"
        ),
        0xD9963A56,
    ),
]


@pytest.mark.parametrize(("data", "crc"), CRC32C)
def test_the_checksum_is_crc_32c(data: bytes, crc: int) -> None:
    assert crc32c(data) == crc
    assert crc32c(data, by_table=True) == crc


@given(st.binary(max_size=100), st.integers(0, 9))
def test_the_checksum_is_the_same_with_and_without_the_instruction(data: bytes, at: int) -> None:
    assert crc32c(memoryview(data)[at:]) == crc32c(data[at:], by_table=True)


def test_the_id_is_the_publishers_the_position_or_the_position_as_a_uuid() -> None:
    position = position_at(1_700_000_000_000) + 7
    events = [Event("a", id="mine"), Event("a"), Event("a", id_style="uuid")]
    ids = [id_of(position, event) for event in events]
    assert ids[:2] == [b"mine", b"1700000000000-7"]
    assert ids[2] == b"urn:uuid:018bcfe5-6800-75e5-8000-000000000007"
    for entry, event_id in zip(encode_entries([position] * 3, events), ids, strict=True):
        assert b"id: %b\n" % event_id in entry.frame.body
