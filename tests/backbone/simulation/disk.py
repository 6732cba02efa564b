"""A disk that remembers what was synced, fails when the test says so, and can be damaged.

An image is what is left of the files of one history: the database, its log, its record of commits.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from fastsse.backbone.sqlite import reopening, writer
from fastsse.backbone.sqlite.commits import CommitRecord

ENDINGS = ("", "-wal", "-commits")
SECTOR_BYTES = 512
PAGE_BYTES = 4096

Image = dict[str, bytes]


class SimulatedDisk:
    """The files of one life of a server.

    Arguments:
        path: the database.
        image: what is there at first.
    """

    def __init__(self, path: Path, image: Image) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._code = 0
        self._is_after = False
        for ending, raw in image.items():
            self._file(ending).write_bytes(raw)
        self._durable = dict(image)

    def fail(self, code: int, is_after: bool) -> None:
        """Has every commit and every checkpoint fail, before or after it was carried out."""
        self._code, self._is_after = code, is_after

    def repair(self) -> None:
        """Has everything succeed again."""
        self._code = 0

    def killed(self) -> Image:
        """What a killed process leaves: all that it wrote. Loop thread, at any time."""
        with self._lock:
            return self._read(ENDINGS)

    def without_power(self, chance: Random) -> Image:
        """What a machine without power leaves: of each sector what was synced, or what was written
        since."""
        with self._lock:
            now, durable = self._read(ENDINGS), dict(self._durable)
        left = {}
        for ending in ENDINGS:
            old, new = durable.get(ending), now.get(ending)
            kept = old if new is None or old == new else _torn(chance, old or b"", new)
            if kept is not None:
                left[ending] = kept
        return left

    def synced(self, *endings: str) -> None:
        """What these files hold now would survive a loss of power."""
        with self._lock:
            found = self._read(endings)
            for ending in endings:
                self._durable.pop(ending, None)
            self._durable.update(found)

    def connect(self, *arguments: Any, **options: Any) -> sqlite3.Connection:
        """As sqlite3.connect."""
        disk = self

        class Connection(sqlite3.Connection):
            is_full = False

            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                if not sql.startswith(("COMMIT", "PRAGMA")):
                    return super().execute(sql, *values)
                with disk._lock:
                    return self._watched(sql, *values)

            def _watched(self, sql: str, *values: Any) -> sqlite3.Cursor:
                is_checkpoint = sql.startswith("PRAGMA wal_checkpoint")
                code = disk._code if is_checkpoint or sql == "COMMIT" else 0
                if code and not disk._is_after:
                    raise _error(code)
                cursor = super().execute(sql, *values)
                if code:
                    raise _error(code)
                if sql.startswith("PRAGMA synchronous"):
                    self.is_full = sql.endswith("FULL")
                elif is_checkpoint or sql.startswith("PRAGMA journal_mode"):
                    disk.synced("", "-wal")
                elif sql == "COMMIT" and self.is_full:
                    disk.synced("-wal") if disk._file("-wal").exists() else disk.synced("")
                return cursor

        return sqlite3.connect(*arguments, factory=Connection, **options)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Within it, syncs of other files than the database are seen, and nothing waits long."""
        renew, sync = reopening._renew_log, CommitRecord.sync

        def renew_log(path: str) -> None:
            renew(path)
            self.synced("-wal")

        def sync_record(record: CommitRecord) -> None:
            sync(record)
            self.synced("-commits")

        with (
            patch.object(reopening, "_renew_log", renew_log),
            patch.object(CommitRecord, "sync", sync_record),
            patch.object(writer, "AGAIN_S", 0.002),
            patch.object(writer, "SYNC_EVERY_S", 0.0),
            patch("fastsse.backbone.sqlite.checkpoint.CHECKPOINT_BYTES", 100_000),
        ):
            yield

    def _file(self, ending: str) -> Path:
        return self.path.with_name(f"{self.path.name}{ending}")

    def _read(self, endings: tuple[str, ...]) -> Image:
        files = {ending: self._file(ending) for ending in endings}
        return {ending: file.read_bytes() for ending, file in files.items() if file.exists()}


def _error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("simulated")
    error.sqlite_errorcode = code
    return error


def _torn(chance: Random, old: bytes, new: bytes) -> bytes:
    """Sectors of both, and the size of either."""
    share = chance.choice((0.0, 0.1, 0.5, 0.9, 1.0))
    mixed = bytearray(old.ljust(len(new), b"\0"))
    for start in range(0, len(new), SECTOR_BYTES):
        if chance.random() < share:
            mixed[start : start + SECTOR_BYTES] = new[start : start + SECTOR_BYTES]
    return bytes(mixed[: chance.choice((max(len(old), len(new)), len(new)))])


# -- damage ---------------------------------------------------------------------------------------


def _without(ending: str) -> Callable[[Random, Image], None]:
    def remove(chance: Random, image: Image) -> None:
        image.pop(ending, None)

    return remove


def _cut(ending: str) -> Callable[[Random, Image], None]:
    def cut(chance: Random, image: Image) -> None:
        raw = image.get(ending, b"")
        if raw:
            image[ending] = raw[: chance.randrange(len(raw))]

    return cut


def _flipped(ending: str) -> Callable[[Random, Image], None]:
    def flip(chance: Random, image: Image) -> None:
        raw = bytearray(image.get(ending, b""))
        for _ in range(chance.randint(1, 20)):
            if raw:
                raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        if raw:
            image[ending] = bytes(raw)

    return flip


def _zeroed(ending: str) -> Callable[[Random, Image], None]:
    def zero(chance: Random, image: Image) -> None:
        raw = bytearray(image.get(ending, b""))
        for _ in range(chance.randint(1, 3)):
            start = chance.randrange(len(raw) // PAGE_BYTES + 1) * PAGE_BYTES
            raw[start : start + PAGE_BYTES] = bytes(len(raw[start : start + PAGE_BYTES]))
        if raw:
            image[ending] = bytes(raw)

    return zero


def _alone(chance: Random, image: Image) -> None:
    image.pop("-wal", None)
    image.pop("-commits", None)


DAMAGES: dict[str, Callable[[Random, Image], None]] = {
    "no log": _without("-wal"),
    "log cut": _cut("-wal"),
    "log flipped": _flipped("-wal"),
    "log zeroed": _zeroed("-wal"),
    "no record": _without("-commits"),
    "record cut": _cut("-commits"),
    "record flipped": _flipped("-commits"),
    "file alone": _alone,
    "file cut": _cut(""),
    "file zeroed": _zeroed(""),
    "file flipped": _flipped(""),
    "no file": _without(""),
}
