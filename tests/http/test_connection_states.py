"""The table of a connection's states: what may follow what."""

import itertools

import pytest

from fastsse.http.connection import Connection, ConnectionState

ALLOWED = {
    "HEAD": "BODY ANSWERING REFUSING CLOSING LINGERING GONE",
    "BODY": "ANSWERING REFUSING GONE",
    "ANSWERING": "HEAD HANDOVER REFUSING CLOSING GONE",
    "HANDOVER": "ANSWERING REFUSING GONE",
    "REFUSING": "LINGERING GONE",
    "CLOSING": "GONE",
    "LINGERING": "GONE",
    "GONE": "GONE",
}
PAIRS = list(itertools.product(ConnectionState, repeat=2))


def connection_in(state: ConnectionState) -> Connection:
    """A connection without a socket, of which only the state is looked at."""
    connection = Connection.__new__(Connection)
    connection._state = state
    return connection


def is_allowed(pair: tuple[ConnectionState, ConnectionState]) -> bool:
    return pair[1].name in ALLOWED[pair[0].name].split()


@pytest.mark.parametrize(("before", "after"), [pair for pair in PAIRS if is_allowed(pair)])
def test_a_pair_of_the_table_is_taken(before: ConnectionState, after: ConnectionState) -> None:
    connection = connection_in(before)
    connection._become(after)
    assert connection._state == after


@pytest.mark.parametrize(("before", "after"), [pair for pair in PAIRS if not is_allowed(pair)])
def test_a_pair_that_the_table_does_not_have_raises(
    before: ConnectionState, after: ConnectionState
) -> None:
    connection = connection_in(before)
    with pytest.raises(RuntimeError, match=f"in {before.name} can't become {after.name}"):
        connection._become(after)
    assert connection._state == before
