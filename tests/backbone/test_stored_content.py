"""Content that is read from records where they lie is what the frames of the same events have."""

import asyncio
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsse._content import StoredContent, take_content, take_stored
from fastsse.backbone import Stretch
from fastsse.backbone.sqlite.places import place_of
from fastsse.backbone.sqlite.queries import SINGLE_ROWS_MAX
from fastsse.config import Config
from fastsse.directives import Directives
from fastsse.entries import Entry, encode_entries, pack_entry, unpack_entries
from fastsse.errors import FastsseError
from fastsse.events import DATA_BYTES, DATA_TEXT, Event
from fastsse.streams.content import Content, data_of, pieces_of, rendered
from fastsse.streamstate import StreamConfig
from tests.backbone.storage import TIMEOUT_S, opened
from tests.backbone.test_sqlite_damage import damage_records
from tests.hub.backbone_contract import Tail

MS = 1_700_000_000_000
ALL = 1 << 126
CONFIG = Config(history_age="3650d")
JSON = StreamConfig("application/json")
BINARY = StreamConfig("image/png")
bodies = st.lists(
    st.tuples(st.sampled_from([DATA_TEXT, DATA_BYTES]), st.binary(max_size=80)), max_size=12
)


def entries_of(events: list[Event]) -> list[Entry]:
    return encode_entries([MS << 64 | n for n in range(1, 1 + len(events))], events, MS)


def stored(entries: list[Entry], topic: str = "s", cut: int = 1) -> StoredContent:
    """As a store gives it: `cut` parts of records."""
    records = [pack_entry(one) for one in entries]
    parts = [b"".join(records[at::cut]) for at in range(cut)] if cut > 1 else [b"".join(records)]
    return StoredContent(parts if entries else [], topic, [place_of(e.position) for e in entries])


def piece(kind: int, body: bytes) -> Event:
    if kind == DATA_BYTES:
        return Event("s", pieces_of(BINARY, body)[0].data, data_kind=DATA_BYTES)
    return Event("s", body.hex().replace("a", "\n"), event="name" if len(body) % 2 else None)


@given(bodies, st.integers(1, 300), st.integers(0, 14), st.sampled_from([0, 3]))
def test_a_page_of_records_is_the_page_of_frames(
    pieces: list[tuple[int, bytes]], room: int, through: int, every: int
) -> None:
    events = [piece(*one) for one in pieces]
    if every:
        events[::every] = [Event.end("s") for _ in events[::every]]
    entries = entries_of(events)
    frames: list[Content] = []
    runs: list[Content] = []
    # A reader of the store has the frames of control entries from it too.
    loaded = [one.frame for one in unpack_entries(b"".join(map(pack_entry, entries)))]
    left = take_content(loaded, MS << 64 | through, room, frames)
    assert take_stored(stored(entries), MS << 64 | through, room, runs) == left
    assert len(runs) <= 1
    for config in (JSON, BINARY):
        assert rendered(config, runs) == rendered(config, frames)
    if frames:
        assert runs[-1].position == frames[-1].position


def test_what_has_expired_is_left_out() -> None:
    short = Event("s", "b", directives=Directives(ttl_ms=10))
    events = [Event("s", "a"), short, Event("s", "c")]
    content = stored(entries_of(events))
    for now_ms, wanted in ((MS, b"[a,b,c]"), (MS + 10, b"[a,c]")):
        runs: list[Content] = []
        assert take_stored(content, ALL, 1000, runs, now_ms) > 0
        assert rendered(JSON, runs) == wanted


@pytest.mark.parametrize("at", range(0, 60, 7))
def test_a_damaged_record_is_refused(at: int) -> None:
    (entry,) = entries_of([Event("s", "the data")])
    record = bytearray(pack_entry(entry))
    record[at % len(record)] ^= 4
    with pytest.raises(ValueError, match="record"):
        StoredContent([bytes(record)], "s", [place_of(entry.position)])


def test_records_of_another_topic_or_place_or_number_are_refused() -> None:
    entries = entries_of([Event(("a", "s"), "x"), Event("s", "y")])
    records, places = [*map(pack_entry, entries)], [place_of(e.position) for e in entries]
    assert StoredContent(records, "s", places).count == 2
    assert StoredContent([records[0] + records[1]], "s", places).count == 2
    for some, topic, of in (
        (records, "a", places),
        (records, "ss", places),
        (records, "s", [places[0], places[1] + 1]),
        (records, "s", places[:1]),
        (records[:1], "s", places),
        ([*records, b""], "s", [*places, places[1] + 1]),
        ([records[0] + records[1][:-1]], "s", places),
        ([records[0][:9]], "s", places[:1]),
    ):
        with pytest.raises(ValueError, match="record"):
            StoredContent(some, topic, of)
    assert StoredContent([], "s", []).count == 0


async def page(tail: Tail, after: int, limit_bytes: int) -> Stretch:
    answer: asyncio.Future[Stretch | FastsseError] = asyncio.get_running_loop().create_future()
    tail.backbone.read_content("s", after, limit_bytes, answer.set_result)
    async with asyncio.timeout(TIMEOUT_S):
        found = await answer
    assert isinstance(found, Stretch)
    return found


async def content_of(tail: Tail, limit_bytes: int) -> tuple[bytes, list[int]]:
    """All content, and up to where some of it was damaged."""
    found, after, damaged = b"", 0, []
    while True:
        stretch = await page(tail, after, limit_bytes)
        runs: list[Content] = []
        if stretch.content is not None:
            take_stored(stretch.content, ALL, 1 << 40, runs)
        else:
            take_content([one.frame for one in stretch.entries], ALL, 1 << 40, runs)
        damaged += [stretch.damaged_through] if stretch.damaged_through else []
        found += b"".join(map(data_of, runs))
        after = stretch.through
        if stretch.is_last:
            return found, damaged


@pytest.mark.parametrize("limit_bytes", [1, 3_000, 1 << 20])
async def test_a_file_gives_all_content_in_pages_and_no_damaged_part(
    tmp_path: Path, limit_bytes: int
) -> None:
    path, count = tmp_path / "history.db", 3 * SINGLE_ROWS_MAX
    async with opened(path, CONFIG) as tail:
        for n in range(count):
            await tail.append(Event("s", f"<{n}>\n"), Event("other", "no"))
        found, damaged = await content_of(tail, limit_bytes)
        entries = [one for one in tail.entries if one.topics == ("s",)]
    assert found == b"".join(b"<%d>\n" % n for n in range(count))
    assert not damaged
    damage_records(path, entries, 7)
    async with opened(path, CONFIG) as tail:
        found, damaged = await content_of(tail, limit_bytes)
    assert found == b"".join(b"<%d>\n" % n for n in range(count) if n != 7)
    assert damaged == [entries[7].position]


@pytest.mark.parametrize("config", [StreamConfig("text/plain"), BINARY, JSON])
def test_a_page_takes_no_more_memory_than_it_has_while_it_is_made(config: StreamConfig) -> None:
    body = (
        b"[%b]" % b",\n".join([b"1"] * 50_000) if config is JSON else b"0123456789abcd\n" * 20_000
    )
    events = [Event("s", data, data_kind=kind) for data, kind in pieces_of(config, body)]
    entries = entries_of(events * (1 if config is JSON else 5))
    content = stored(entries)
    runs: list[Content] = []
    take_stored(content, ALL, 1 << 40, runs)
    for contents in (runs, [entry.frame for entry in entries]):
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            page = rendered(config, contents)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak - before < len(page) + 1_000
        assert len(page) > 50_000
