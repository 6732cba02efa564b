"""Bearers are known by their handles, for as long as they are there."""

from fastsse.hub.token_table import TokenRow, TokenTable


def test_a_bearer_is_known_until_it_ends_or_its_slot_is_anothers() -> None:
    tokens = TokenTable()
    first, later = 5 | 1 << 32, 5 | 2 << 32
    one = TokenRow(3, (1 << 64) - 1, 1_800_000_000_000, True)
    tokens.add(first, one)
    assert tokens.find(first) == one
    assert [tokens.find(handle) for handle in (0, later, 4 | 1 << 32, 99 | 1 << 32)] == [None] * 4
    tokens.renew(first, 7)
    assert tokens.find(first) == one._replace(expires_ms=7)
    other = TokenRow(0, 0, 0, False)
    tokens.add(later, other)
    tokens.drop(first)
    assert (tokens.find(first), tokens.find(later)) == (None, other)
    tokens.drop(later)
    assert tokens.find(later) is None


def test_a_bearer_costs_numbers_only() -> None:
    tokens = TokenTable()
    for slot in range(10_000):
        tokens.add(slot | 1 << 32, TokenRow(slot, slot, slot, False))
    columns = (tokens._handles, tokens._subjects, tokens._ends_ms, tokens._channels)
    assert sum(column.itemsize * len(column) for column in columns) == 28 * 10_000
