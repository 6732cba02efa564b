"""Rows of durable streams in the file: read once, written in few statements."""

import sqlite3
from collections.abc import Iterator

import pytest

from fastsse.backbone.sqlite.stream_file import StreamFile
from fastsse.backbone.stream_rows import RowChange
from fastsse.streamstate import StreamConfig, StreamRow

TEXT = StreamConfig("text/plain")


def row(tail: int, size_bytes: int = 600, config: StreamConfig = TEXT) -> StreamRow:
    return StreamRow(1, config, tail, size_bytes=size_bytes)


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    one = sqlite3.connect(":memory:", isolation_level=None)
    one.execute("CREATE TABLE stream (topic TEXT PRIMARY KEY, row BLOB NOT NULL) WITHOUT ROWID")
    yield one
    one.close()


@pytest.fixture
def streams(connection: sqlite3.Connection) -> StreamFile:
    file = StreamFile(lambda: 0)
    file.begin(connection)
    return file


def in_file(connection: sqlite3.Connection) -> dict[str, StreamRow]:
    found = connection.execute("SELECT topic, row FROM stream").fetchall()
    return {topic: StreamRow.decode(text) for topic, text in found}


def test_a_transaction_takes_as_many_statements_for_a_hundred_streams_as_for_a_few(
    connection: sqlite3.Connection, streams: StreamFile
) -> None:
    names = [f"s{n}" for n in range(100)]
    streams.add([RowChange(name, row(1)) for name in names])
    streams.store()
    seen: list[str] = []
    connection.set_trace_callback(seen.append)
    streams.begin(connection)
    for name in names:
        before = streams.get(name)
        assert before is not None
        streams.add([RowChange(name, before._replace(tail=2))])
    streams.store()
    assert not seen  # Content alone has changed: the rows are written later.
    streams.write_late(names)
    assert not [one for one in seen if "SELECT" in one]
    assert len(seen) <= 7  # 64, 32 and 4 rows; never one for each.
    assert in_file(connection) == {name: row(2) for name in names}


def test_bytes_are_those_of_the_file_whatever_a_transaction_does(
    connection: sqlite3.Connection, streams: StreamFile
) -> None:
    streams.add([RowChange("a", row(1, 700)), RowChange("b", row(1, 800))])
    assert streams.limits.bytes == 1500
    streams.add([RowChange("a", row(2, 900)), RowChange("b", None), RowChange("c", row(1, 10))])
    assert streams.limits.bytes == 910
    streams.add([RowChange("c", None), RowChange("b", row(3, 5))])
    assert streams.limits.bytes == 905
    streams.store()
    assert (streams.bytes, streams.limits.bytes) == (905, 905)
    assert streams.get("c") is None
    streams.begin(connection)
    streams.add([RowChange("a", row(4, 1000))])
    streams.store()
    assert (streams.bytes, set(streams.late)) == (1005, {"a"})
    streams.write_late(["a", "b"])
    assert (streams.bytes, set(streams.late)) == (1005, set())
    again = StreamFile(lambda: 0)
    again.begin(connection)
    assert again.bytes == streams.bytes == 1005
    assert set(again.topics) == set(streams.topics) == {"a", "b"}


def test_rows_are_read_again_after_a_transaction_that_failed(
    connection: sqlite3.Connection, streams: StreamFile
) -> None:
    streams.add([RowChange("a", row(1))])
    streams.store()
    connection.execute("BEGIN")
    streams.begin(connection)
    streams.add([RowChange("a", row(2, 9000)), RowChange("b", row(2))])
    streams.store()
    connection.execute("ROLLBACK")
    streams.forget()
    streams.begin(connection)
    assert streams.get("a") == row(1)
    assert streams.get("b") is None
    assert streams.bytes == 600


def test_a_change_of_more_than_content_is_written_at_once(
    connection: sqlite3.Connection, streams: StreamFile
) -> None:
    streams.add([RowChange("a", row(1))])
    streams.store()
    for change in ({"closed": 9}, {"forks": 1}, {"is_hidden": True}, {"generation": 7}):
        before = streams.get("a")
        assert before is not None
        streams.add([RowChange("a", before._replace(tail=before.tail + 1))])
        streams.store()
        assert in_file(connection)["a"].tail < before.tail + 1
        streams.add([RowChange("a", before._replace(tail=before.tail + 2, **change))])
        streams.store()
        assert in_file(connection)["a"] == streams.get("a")
        assert not streams.late


def test_a_touch_changes_the_row_and_not_what_streams_take(
    connection: sqlite3.Connection, streams: StreamFile
) -> None:
    streams.add([RowChange("a", row(1))])
    streams.store()
    later = StreamFile(lambda: 77)
    later.begin(connection)
    later.touch(connection, "a", 2)
    assert in_file(connection)["a"].touched_ms == 0
    later.touch(connection, "a", 1)
    assert in_file(connection)["a"] == later.get("a") == row(1)._replace(touched_ms=77)
    assert later.bytes == streams.bytes


def test_rows_that_were_created_alike_share_what_they_have_in_common() -> None:
    config = StreamConfig("text/plain", ttl_s=60, private=True)
    one, other = (StreamRow.decode(row(n, config=config).encode()) for n in (1, 2))
    assert one.config == config
    assert one.config is other.config
