"""The file of places: how far each followed file was taken.

It is written as a whole and renamed, so a kill leaves the old or the new one. Its reader holds a
lock on it, so two processes can't follow with the same places.
"""

import fcntl
import os
import pathlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final, Self

import orjson

__all__ = ["FilePlaces", "PlacesInUse", "SavedPlace"]

_VERSION: Final = 1


class PlacesInUse(OSError):
    """Another process has the file of places."""


@dataclass(slots=True)
class SavedPlace:
    """How far a file was taken.

    Attributes:
        path: where it was found.
        device, inode: of the file.
        generation: a random name of its content: a file that is emptied gets another one.
        offset: the first byte that was not taken.
        head_bytes, head: the length and the digest of its beginning, to know it again.
    """

    path: str
    device: int
    inode: int
    generation: str
    offset: int = 0
    head_bytes: int = 0
    head: str = ""


class FilePlaces:
    """Keeps places in a file. One thread.

    Arguments:
        path: the file; None keeps nothing.
        keeps: False reads it only, without the lock.

    Attributes:
        saved: what it had when it was opened.
        is_new: nothing was kept before.
    """

    def __init__(self, path: str | None, *, keeps: bool = True) -> None:
        self._path = None if path is None else pathlib.Path(path)
        self._keeps: Final = keeps and path is not None
        self._file: int | None = None
        self.saved: list[SavedPlace] = []
        self.is_new = True

    def opened(self) -> Self:
        """Takes the lock and reads. Raises OSError, PlacesInUse; ValueError for another file."""
        path = self._path
        if path is None:
            return self
        if self._keeps:
            self._file = _locked(path)
        text = path.read_bytes() if path.exists() else b""
        if text:
            self.is_new = False
            self.saved = _read(path, text)
        return self

    def save(self, places: Iterable[SavedPlace]) -> None:
        """Replaces the file. Raises OSError; then the old one stays."""
        path = self._path
        if not self._keeps or path is None:
            return
        text = orjson.dumps({"version": _VERSION, "files": [asdict(place) for place in places]})
        new = path.with_name(path.name + ".new")
        file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write(file, text)
            os.replace(new, path)
        except BaseException:
            os.close(file)
            raise
        if self._file is not None:
            os.close(self._file)
        self._file = file

    def close(self) -> None:
        """Releases the lock. Idempotent."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def _locked(path: pathlib.Path) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its holder may have replaced it in between.
            if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                return file
        except BlockingIOError:
            os.close(file)
            raise PlacesInUse(f"{path}: another process follows with these places") from None
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _write(file: int, text: bytes) -> None:
    written = 0
    while written < len(text):
        written += os.write(file, memoryview(text)[written:])
    os.fdatasync(file)


def _read(path: pathlib.Path, text: bytes) -> list[SavedPlace]:
    try:
        content = orjson.loads(text)
        if content["version"] != _VERSION:
            raise ValueError
        return [SavedPlace(**one) for one in content["files"]]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: this is no file of places of this version") from None
