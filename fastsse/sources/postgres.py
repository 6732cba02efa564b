"""PostgreSQL: rows of an outbox table, or notifications, as events.

An outbox row is written in the transaction of the change that it is about. It is deleted in a
transaction that is committed when the log has its event, so it is delivered at least once. Several
nodes take different rows (`SKIP LOCKED`).

Notifications (`LISTEN`) are kept by nothing: those sent while this node is away are lost.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any, Final

import orjson

from fastsse.config.sources import SourceRule
from fastsse.sources.extras import import_extra
from fastsse.sources.read_count import ReadCount
from fastsse.sources.source import Batch, Message, PlainMessage, SourceAway, Words
from fastsse.sources.source_publisher import BATCH_EVENTS

__all__ = ["OutboxSource", "PostgresChannels"]

CONNECT_S: Final = 5
WAIT_S: Final = 0.5
END_S: Final = 0.5
WORD_BYTES_MAX: Final = 1024


class _Link:
    """A connection that its owner opens again after a failure."""

    def __init__(self, rule: SourceRule) -> None:
        self._psycopg: Any = import_extra("psycopg", "postgres", f"The source {rule.name}")
        self._rule: Final = rule
        self.connection: Any = None

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """What its calls raise."""
        return (self._psycopg.Error, OSError)

    async def open(self) -> None:
        """Connects. Raises SourceAway."""
        try:
            self.connection = await self._psycopg.AsyncConnection.connect(
                self._rule.url,
                autocommit=True,
                connect_timeout=CONNECT_S,
                application_name="fastsse",
            )
        except self.errors as error:
            raise SourceAway(text_of(error)) from None
        # JSON as it is, not parsed and written again.
        self._psycopg.types.json.set_json_loads(bytes, self.connection)

    async def listen(self, channels: Sequence[str]) -> None:
        """Listens to channels."""
        from psycopg import sql

        for channel in channels:
            await self.connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))

    async def notified(self, most: int, wait_s: float) -> list[Any]:
        """Notifications that are there, or the first that come within a time."""
        found = self.connection.notifies(timeout=wait_s, stop_after=most)
        return [one async for one in found]

    async def close(self) -> None:
        """Disconnects; a transaction that is open is undone."""
        connection, self.connection = self.connection, None
        if connection is not None:
            with contextlib.suppress(*self.errors, TimeoutError):
                async with asyncio.timeout(END_S):
                    await connection.close()


class PostgresChannels:
    """Listens to channels of PostgreSQL.

    Arguments:
        rule: the source.
    """

    trouble: str | None = None
    backlog: int | None = None

    def __init__(self, rule: SourceRule) -> None:
        self._rule: Final = rule
        self._link: Final = _Link(rule)
        self._most: Final = min(rule.pending, BATCH_EVENTS)

    async def open(self) -> None:
        """As Source."""
        await self._link.open()
        try:
            await self._link.listen(self._rule.channels)
        except self._link.errors as error:
            raise SourceAway(text_of(error)) from None

    async def read(self) -> Batch:
        """As Source."""
        try:
            found = await self._link.notified(self._most, WAIT_S)
        except self._link.errors as error:
            raise SourceAway(text_of(error)) from None
        return Batch([_notification(one) for one in found], is_last=len(found) < self._most)

    async def acknowledge(self, batch: Batch) -> None:
        """As Source. The server keeps no notification."""

    async def idle(self) -> None:
        """As Source. Notifications wait in the server."""

    async def preview(self, count: int, wait_s: float) -> Sequence[Message]:
        """As Source: what is sent within the time."""
        await self.open()
        found: list[Message] = []
        until_s = time.monotonic() + wait_s
        try:
            while len(found) < count and (left_s := until_s - time.monotonic()) > 0:
                more = await self._link.notified(count - len(found), min(left_s, WAIT_S))
                found += map(_notification, more)
            return found
        finally:
            await self._link.close()

    async def close(self, *, is_end: bool) -> None:
        """As Source."""
        await self._link.close()


class OutboxSource:
    """Takes rows out of an outbox table, in the order of its column `id`.

    Arguments:
        rule: the source.
    """

    trouble: str | None = None
    backlog: int | None = None

    def __init__(self, rule: SourceRule) -> None:
        assert rule.table is not None
        self._rule: Final = rule
        self._link: Final = _Link(rule)
        self._table: Final = rule.table
        self._count: Final = ReadCount(min(rule.pending, BATCH_EVENTS))

    async def open(self) -> None:
        """As Source. A notification on the channel with the name of the table wakes it."""
        await self._link.open()
        try:
            await self._link.listen((self._table,))
        except self._link.errors as error:
            raise SourceAway(text_of(error)) from None

    async def read(self) -> Batch:
        """As Source. The rows are locked until they are acknowledged."""
        try:
            most = self._count.value
            rows = await self._taken(most)
            if not rows:
                await self._link.notified(1, WAIT_S)
                return Batch()
        except self._link.errors as error:
            raise SourceAway(text_of(error)) from None
        messages = [_row_message(self._table, self._rule.field, row) for row in rows]
        self._count.note(len(rows), sum(map(_row_bytes, rows)))
        return Batch(messages, len(rows), is_last=len(rows) < most)

    async def acknowledge(self, batch: Batch) -> None:
        """As Source."""
        try:
            await self._link.connection.execute("COMMIT")
        except self._link.errors as error:
            raise SourceAway(text_of(error)) from None

    async def idle(self) -> None:
        """As Source. Notices a connection that was lost, with which the locks are gone."""
        try:
            await self._link.connection.execute("SELECT 1")
        except self._link.errors as error:
            raise SourceAway(text_of(error)) from None

    async def preview(self, count: int, wait_s: float) -> Sequence[Message]:
        """As Source: the rows that it would take."""
        await self._link.open()
        try:
            rows = await self._taken(count)
            return [_row_message(self._table, self._rule.field, row) for row in rows]
        except self._link.errors as error:
            raise SourceAway(text_of(error)) from None
        finally:
            # The rows stay: nothing was committed.
            await self._link.close()

    async def close(self, *, is_end: bool) -> None:
        """As Source. Rows that were not acknowledged are there again."""
        await self._link.close()

    async def _taken(self, most: int) -> list[dict[str, Any]]:
        from psycopg import sql
        from psycopg.rows import dict_row

        table = sql.Identifier(*self._table.split("."))
        query = sql.SQL(
            "DELETE FROM {0} WHERE id IN "
            "(SELECT id FROM {0} ORDER BY id LIMIT {1} FOR UPDATE SKIP LOCKED) RETURNING *"
        ).format(table, sql.Literal(most))
        connection = self._link.connection
        await connection.execute("BEGIN")
        cursor = connection.cursor(row_factory=dict_row)
        rows: list[dict[str, Any]] = await (await cursor.execute(query)).fetchall()
        if not rows:
            await connection.execute("ROLLBACK")
        return sorted(rows, key=lambda row: row["id"])


def _notification(one: Any) -> PlainMessage:
    words = {"channel": one.channel}
    return PlainMessage(one.channel, one.payload.encode(), lambda: words)


def _row_message(table: str, field: str, row: dict[str, Any]) -> PlainMessage:
    payload = row.get(field)
    if field not in row:
        payload = orjson.dumps({name: _shown(value) for name, value in row.items()})
    return PlainMessage(f"{table}/{row['id']}", _bytes(payload), lambda: _row_words(row))


def _bytes(value: Any) -> bytes:
    if value is None:
        return b""
    return bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()


def _row_bytes(row: dict[str, Any]) -> int:
    return sum(len(value) for value in row.values() if isinstance(value, str | bytes | memoryview))


def _row_words(row: dict[str, Any]) -> Words:
    words = {}
    for name, value in row.items():
        if value is not None and len(text := str(_shown(value))) <= WORD_BYTES_MAX:
            words[f"field.{name}"] = text
    return words


def _shown(value: Any) -> Any:
    """A value of a column as JSON or text."""
    if isinstance(value, bytes | memoryview):
        return bytes(value).decode("utf-8", "replace")
    return value if isinstance(value, str | int | float | None) else str(value)


def text_of(error: BaseException) -> str:
    """The first line of an error's text."""
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__
