"""Who is connected: packed rows, and searches in them."""

import ipaddress
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsse._connections import ROW_BYTES, ConnectionRows
from fastsse.auth.rights import Rights
from fastsse.hub.connections import AGENTS_MAX, ConnectionFilter, Connections, Visitor

CAPACITY = 64
ADDRESS = st.ip_addresses().map(str)
SUBJECT = st.none() | st.text(min_size=1, max_size=60) | st.uuids().map(str)
USER = "0198c6c2-33a4-7c11-a000-0123456789ab"


def handles() -> Iterator[int]:
    """Handles of the first generation of each slot."""
    return (slot | 1 << 32 for slot in range(CAPACITY))


@given(ADDRESS, st.integers(0, 65535), st.binary(max_size=300), SUBJECT)
def test_a_row_says_what_was_put_or_that_it_is_cut(
    address: str, port: int, agent: bytes, subject: str | None
) -> None:
    rows = Connections(CAPACITY)
    rows.opened(1 << 32, 7, Visitor(address, port, agent), Rights(subject=subject))
    seen = rows.seen(1 << 32)
    assert seen is not None
    assert seen.channel == 7
    host = seen.address.rpartition(":")[0].strip("[]") if port else seen.address
    assert ipaddress.ip_address(host) == ipaddress.ip_address(address)
    assert seen.agent == agent[:200].decode(errors="replace")
    if subject is None:
        assert seen.subject is None
    elif seen.subject != subject:
        assert seen.subject is not None
        assert seen.subject.endswith("…")
        assert subject.startswith(seen.subject[:-1])
        assert len(subject.encode()) > 16


@pytest.mark.parametrize("host", ["unix", "", "1.2.3", "01.2.3.4", "a\0b", "::1::", "fe80::1%eth0"])
def test_hosts_are_read_as_the_standard_library_reads_them(host: str) -> None:
    rows = Connections(CAPACITY)
    rows.opened(1 << 32, 0, Visitor(host), None)
    seen = rows.seen(1 << 32)
    assert seen is not None
    address = host.partition("%")[0]
    try:
        assert ipaddress.ip_address(seen.address) == ipaddress.ip_address(address)
    except ValueError:
        assert seen.address == "unix"
        with pytest.raises(ValueError, match="address"):
            ipaddress.ip_address(address)


def test_a_uuid_is_kept_whole_next_to_an_ipv6_address() -> None:
    rows = Connections(CAPACITY)
    rows.opened(1 << 32, 0, Visitor("2001:db8::1", 443), Rights(subject=USER))
    seen = rows.seen(1 << 32)
    assert seen is not None
    assert (seen.address, seen.subject) == ("[2001:db8::1]:443", USER)
    assert uuid.UUID(seen.subject)


def test_a_row_takes_64_bytes_and_ends_with_its_stream() -> None:
    rows = Connections(CAPACITY)
    assert ROW_BYTES == 64
    for handle in handles():
        rows.opened(handle, 0, Visitor("unix"), None)
    assert rows.memory_bytes == 64 * CAPACITY
    for handle in handles():
        rows.closed(handle)
        assert rows.seen(handle) is None
    rows.closed(1 << 32)  # Again: nothing happens.
    newer = 2 << 32
    rows.opened(newer, 3, Visitor("192.0.2.1"), None)
    assert rows.seen(1 << 32) is None
    assert rows.seen(newer) is not None


def found(rows: Connections, wanted: ConnectionFilter, limit: int = CAPACITY) -> list[int]:
    search, slot, handles = rows.search(wanted), 0, []
    while slot < rows.capacity:
        some, slot = search.step(slot, limit, slots=5)
        handles += some
    return handles


def test_a_search_finds_exactly_what_matches_whatever_its_steps() -> None:
    rows = Connections(CAPACITY)
    for number, handle in enumerate(handles()):
        visitor = Visitor(f"10.0.{number % 2}.{number}", 0, b"Fox/%d" % (number % 3))
        rows.opened(handle, number % 4, visitor, Rights(subject=f"u{number % 5}"))
    everyone = list(handles())
    network = ipaddress.ip_network
    assert found(rows, ConnectionFilter()) == everyone
    assert found(rows, ConnectionFilter(network("10.0.1.0/24"))) == everyone[1::2]
    assert found(rows, ConnectionFilter(network("10.0.0.0/15"))) == everyone
    assert found(rows, ConnectionFilter(network("10.0.1.9/32"))) == [everyone[9]]
    assert found(rows, ConnectionFilter(network("::/0"))) == []
    assert found(rows, ConnectionFilter(subject="u2")) == everyone[2::5]
    assert found(rows, ConnectionFilter(agent="fOX/1")) == everyone[1::3]
    asked: list[int] = []

    def is_odd(channel: int) -> bool:
        asked.append(channel)
        return channel % 2 == 1

    assert found(rows, ConnectionFilter(channel=is_odd)) == everyone[1::2]
    assert sorted(asked) == [0, 1, 2, 3]  # Each channel is asked about once.


def test_agents_that_are_too_many_count_as_other_and_unused_ones_make_room() -> None:
    rows = Connections(AGENTS_MAX + 2)
    for slot in range(AGENTS_MAX + 1):
        rows.opened(slot | 1 << 32, 0, Visitor("unix", 0, b"agent %d" % slot), None)
    last = AGENTS_MAX | 1 << 32
    seen = rows.seen(last)
    assert seen is not None
    assert seen.agent == "other"
    rows.closed(1 | 1 << 32)
    rows.closed(2 | 1 << 32)
    rows.opened(1 | 2 << 32, 0, Visitor("unix", 0, b"new"), None)
    seen = rows.seen(1 | 2 << 32)
    assert seen is not None
    assert seen.agent == "new"


def test_rows_outside_the_table_and_odd_addresses_are_refused() -> None:
    rows = ConnectionRows(4)
    for handle, address in ((4 | 1 << 32, b""), (0, b""), (1 << 32, b"abc")):
        with pytest.raises(ValueError, match=r"slot|address"):
            rows.put(handle, 0, 0, 0, address, 0, 0, b"")
