"""What a record costs: events encoded, packed, read again, and the checksum of one alone."""

from typing import Any

import pytest

from fastsse._records import crc32c
from fastsse.entries import encode_entries, pack_entry, pack_events, unpack_entries, unpack_events
from fastsse.events import Event
from fastsse.positions import position_at

COUNT = 64
FIRST = position_at(1_763_765_540_123) + 1
EVENTS = [Event(f"user/{number}", "x" * 128) for number in range(COUNT)]
ENTRIES = encode_entries(range(FIRST, FIRST + COUNT), EVENTS)
RECORDS = b"".join(map(pack_entry, ENTRIES))
DRAFTS = pack_events(EVENTS)


@pytest.mark.parametrize("what", ["encode", "pack", "unpack", "draft", "read draft"])
def test_a_batch_of_events(benchmark: Any, what: str) -> None:
    """64 events of 128 bytes."""
    call, argument = {
        "encode": (lambda events: encode_entries(range(FIRST, FIRST + COUNT), events), EVENTS),
        "pack": (lambda entries: list(map(pack_entry, entries)), ENTRIES),
        "unpack": (unpack_entries, RECORDS),
        "draft": (pack_events, EVENTS),
        "read draft": (unpack_events, DRAFTS),
    }[what]
    benchmark(call, argument)
    benchmark.extra_info["ns_an_event"] = benchmark.stats.stats.min / COUNT * 1e9


@pytest.mark.parametrize("size", [188, 64 * 1024])
@pytest.mark.parametrize("by_table", [False, True], ids=["instruction", "table"])
def test_a_checksum(benchmark: Any, size: int, by_table: bool) -> None:
    """Of one record, with the processor's instruction and without it."""
    benchmark(crc32c, bytes(size), by_table)
