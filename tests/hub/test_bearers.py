"""Bearers are known by their handles, for as long as they are there."""

from fastsse.hub.bearers import Bearer, Bearers


def test_a_bearer_is_known_until_it_ends_or_its_slot_is_anothers() -> None:
    bearers = Bearers()
    first, later = 5 | 1 << 32, 5 | 2 << 32
    one = Bearer(3, (1 << 64) - 1, 1_800_000_000_000, True)
    bearers.add(first, one)
    assert bearers.find(first) == one
    assert [bearers.find(handle) for handle in (0, later, 4 | 1 << 32, 99 | 1 << 32)] == [None] * 4
    bearers.renew(first, 7)
    assert bearers.find(first) == one._replace(expires_ms=7)
    other = Bearer(0, 0, 0, False)
    bearers.add(later, other)
    bearers.drop(first)
    assert (bearers.find(first), bearers.find(later)) == (None, other)
    bearers.drop(later)
    assert bearers.find(later) is None


def test_a_bearer_costs_numbers_only() -> None:
    bearers = Bearers()
    for slot in range(10_000):
        bearers.add(slot | 1 << 32, Bearer(slot, slot, slot, False))
    columns = (bearers._handles, bearers._subjects, bearers._ends_ms, bearers._channels)
    assert sum(column.itemsize * len(column) for column in columns) == 28 * 10_000
