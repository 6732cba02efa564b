"""Records bring back what was packed, to the last byte, and nothing that was cut or damaged."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsse.entries import (
    encode_entries,
    id_of,
    pack_entry,
    pack_events,
    unpack_entries,
    unpack_events,
)
from fastsse.events import Event
from fastsse.positions import position_at
from tests.hub.backbone_contract import EVERY_FIELD, same

POSITIONS = [position_at(1_700_000_000_000) + 7, position_at((1 << 63) - 1) + (1 << 64) - 1]
EVENTS = [EVERY_FIELD, Event(["é" * 512, *map(str, range(99))], b"", id_style="uuid")]

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
    assert unpack_events(b"") == []


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
def test_a_damaged_record_is_an_entry_or_a_value_error(data: st.DataObject) -> None:
    record = bytearray(pack_entry(encode_entries(POSITIONS[:1], EVENTS[:1])[0]))
    drafts = bytearray(pack_events(EVENTS))
    for buffer, unpack in ((record, unpack_entries), (drafts, unpack_events)):
        buffer[data.draw(st.integers(0, len(buffer) - 1))] = data.draw(st.integers(0, 255))
        with contextlib.suppress(ValueError):
            unpack(buffer)


def test_a_draft_is_validated_again() -> None:
    record = pack_events([Event("abc", "x", event="tick")])
    for whole, broken, why in (
        (b"tick", b"ti\nk", "CR, LF"),
        (b"abc", b"$bc", "reserved"),
        (b"abc", b"\xffbc", "decode"),
    ):
        with pytest.raises(ValueError, match=why):
            unpack_events(record.replace(whole, broken))


def test_the_id_is_the_publishers_the_position_or_the_position_as_a_uuid() -> None:
    position = position_at(1_700_000_000_000) + 7
    events = [Event("a", id="mine"), Event("a"), Event("a", id_style="uuid")]
    ids = [id_of(position, event) for event in events]
    assert ids[:2] == [b"mine", b"1700000000000-7"]
    assert ids[2] == b"urn:uuid:018bcfe5-6800-75e5-8000-000000000007"
    for entry, event_id in zip(encode_entries([position] * 3, events), ids, strict=True):
        assert b"id: %b\n" % event_id in entry.frame.body
