"""A sqlite backbone for tests, with what it delivered; a disk that fails on request."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastsse.backbone.sqlite import Ack, SqliteBackbone
from fastsse.backbone.sqlite.schema import open_reading
from fastsse.config import Config
from fastsse.errors import FastsseError
from fastsse.events import Event
from tests.hub.backbone_contract import START_MS, Tail

TIMEOUT_S = 60
NO_ROOM = sqlite3.SQLITE_FULL
BAD_SECTOR = sqlite3.SQLITE_IOERR_WRITE
NOT_SYNCED = sqlite3.SQLITE_IOERR_FSYNC


class Clock:
    """Unix milliseconds that stand still until they are moved."""

    def __init__(self) -> None:
        self.ms = START_MS

    def __call__(self) -> int:
        return self.ms


class Disk:
    """What connections are opened through. `fail` makes statements that begin so fail, before or
    after they were carried out, until `repair`."""

    def __init__(self) -> None:
        self.code = 0
        self.begins = ""
        self.is_after = False
        self.failures = 0

    def fail(self, code: int, begins: str = "COMMIT", is_after: bool = False) -> None:
        self.code, self.begins, self.is_after = code, begins, is_after

    def repair(self) -> None:
        self.code = 0

    def connect(self, *arguments: Any, **options: Any) -> sqlite3.Connection:
        disk = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                # It may be repaired meanwhile, by another thread.
                code = disk.code if sql.startswith(disk.begins) else 0
                if code and not disk.is_after:
                    raise disk.error(code)
                cursor = super().execute(sql, *values)
                if code:
                    raise disk.error(code)
                return cursor

        return sqlite3.connect(*arguments, factory=Connection, **options)

    def error(self, code: int) -> sqlite3.OperationalError:
        self.failures += 1
        error = sqlite3.OperationalError("injected")
        error.sqlite_errorcode = code
        return error


@asynccontextmanager
async def opened(
    path: Path,
    config: Config | None = None,
    ack: Ack = "written",
    now_ms: Callable[[], int] | None = None,
    **options: Any,
) -> AsyncIterator[Tail]:
    """A backbone on that file, closed at the end."""
    backbone = SqliteBackbone(
        str(path), config or Config(), ack=ack, now_ms=now_ms or Clock(), **options
    )
    try:
        yield Tail(backbone)
    finally:
        await backbone.close()


async def append(tail: Tail, *events: Event, key: tuple[bytes, int]) -> list[int]:
    """As `Tail.append`, with the publisher's key."""
    answer: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

    def done(outcome: Any) -> None:
        if isinstance(outcome, FastsseError):
            answer.set_exception(outcome)
        else:
            answer.set_result(list(outcome))

    tail.backbone.append(events, done, key)  # type: ignore[call-arg]
    return await answer


async def until(condition: Callable[[], bool]) -> None:
    """Waits until it holds."""
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def abandon(tail: Tail) -> None:
    """Leaves a file as a killed process does: nothing more is written, nothing closed cleanly, and
    the log stays where it is."""
    backbone: Any = tail.backbone
    writer, file = backbone._writer, backbone._file
    writer._end_lease = lambda: None
    writer._checkpointer.drop = lambda: None
    # The last connection moves the log into the file, unless it can only read.
    last, close = open_reading(file.path), file.close
    last.execute("SELECT 1 FROM state").fetchone()

    def close_all() -> None:
        close()
        last.close()

    file.close = close_all
