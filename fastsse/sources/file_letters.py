"""Dead letters in a file of JSON lines."""

import asyncio
import base64
import contextlib
import fcntl
import hashlib
import os
import pathlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

import orjson

from fastsse.sources.deadletters import KeptLetter, Letter
from fastsse.sources.source import SourceAway

__all__ = ["FileLetters", "letter_line", "read_letter_line"]

# A larger file becomes PATH.1, whose earlier content is lost.
FILE_BYTES_MAX: Final = 64 * 1024 * 1024

T = TypeVar("T")


class FileLetters:
    """A file of JSON lines, each with source, origin, why, payload and words. A payload that is no
    UTF-8 is `payload_base64`.

    Arguments:
        path: the file; it is made when the first letter comes.
        source: the source's name.
    """

    def __init__(self, path: str, source: str) -> None:
        self._path = pathlib.Path(path)
        self._source = source

    async def open(self) -> None:
        """As LetterStore."""

    async def write(self, letters: Sequence[Letter]) -> int:
        """As LetterStore. A full disk is away: it is tried again."""
        lines = b"".join(letter_line(self._source, letter) for letter in letters)
        try:
            await asyncio.to_thread(_append, self._path, lines)
        except OSError as error:
            raise SourceAway(f"{self._path}: {error.strerror}") from None
        return len(letters)

    async def read(self, count: int, skip: int = 0) -> Sequence[KeptLetter]:
        """As LetterStore. Letters of other sources in the file are passed over."""
        return await self._in_thread(lambda: list(self._letters(skip, skip + count)))

    async def settle(self, done: Sequence[KeptLetter], failed: Sequence[KeptLetter]) -> None:
        """As LetterStore. Writes the files again without these lines."""
        places = Counter(one.place for one in done)
        if places:
            await self._in_thread(lambda: _remove(self._path, places))

    async def close(self) -> None:
        """As LetterStore."""

    def _letters(self, first: int, behind: int) -> Iterator[KeptLetter]:
        at = 0
        for path in (_older(self._path), self._path):
            if not path.exists():
                continue
            with path.open("rb") as lines:
                for line in lines:
                    kept = _kept_line(line, self._source)
                    if kept is None:
                        continue
                    if at >= first:
                        yield kept
                    at += 1
                    if at >= behind:
                        return

    async def _in_thread(self, function: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(function)
        except OSError as error:
            raise SourceAway(f"{self._path}: {error.strerror}") from None


def _older(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(path.name + ".1")


def _locked(path: pathlib.Path) -> int:
    """Opens the file to append, and keeps others from changing it until it is closed."""
    while True:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Another may have replaced it in between.
            if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _append(path: pathlib.Path, lines: bytes) -> None:
    """Appends lines, all or none, so that a line is never cut."""
    file = _locked(path)
    try:
        size_bytes = os.fstat(file).st_size
        written = 0
        try:
            while written < len(lines):
                written += os.write(file, memoryview(lines)[written:])
        except OSError:
            # A device has no length; the first error is the one to report.
            with contextlib.suppress(OSError):
                os.ftruncate(file, size_bytes)
            raise
        if size_bytes + written > FILE_BYTES_MAX:
            path.replace(_older(path))
    finally:
        os.close(file)


def _remove(path: pathlib.Path, places: "Counter[bytes]") -> None:
    """Removes lines, each as often as it is named. A kill leaves the old or the new file."""
    file = _locked(path)
    try:
        for one in (_older(path), path):
            if one.exists():
                _remove_from(one, places)
    finally:
        os.close(file)


def _remove_from(path: pathlib.Path, places: "Counter[bytes]") -> None:
    new = path.with_name(path.name + ".new")
    with path.open("rb") as lines, new.open("wb") as kept:
        os.fchmod(kept.fileno(), 0o600)
        for line in lines:
            digest = _digest(line)
            if places[digest] > 0:
                places[digest] -= 1
            else:
                kept.write(line)
        kept.flush()
        os.fsync(kept.fileno())
    new.replace(path)


def _digest(line: bytes) -> bytes:
    return hashlib.blake2b(line, digest_size=16).digest()


def _kept_line(line: bytes, source: str) -> KeptLetter | None:
    """The letter of a line; None for a line of another source, or that is none."""
    try:
        of, letter = read_letter_line(line)
    except ValueError:
        return None
    return KeptLetter(_digest(line), letter) if of == source else None


def letter_line(source: str, letter: Letter) -> bytes:
    """A letter as a line of JSON."""
    try:
        payload = {"payload": letter.payload.decode()}
    except UnicodeDecodeError:
        payload = {"payload_base64": base64.b64encode(letter.payload).decode()}
    words = letter.words.encode()
    members = {
        "source": source,
        "origin": letter.origin.encode("utf-8", "replace").decode(),
        "why": letter.why.encode("utf-8", "replace").decode(),
        **payload,
        **({"words": orjson.Fragment(words)} if words else {}),
    }
    return orjson.dumps(members, option=orjson.OPT_APPEND_NEWLINE)


def read_letter_line(line: bytes) -> tuple[str, Letter]:
    """A source's name and its letter. Raises ValueError for a line that is none."""
    members = orjson.loads(line)
    if not isinstance(members, dict) or "source" not in members:
        raise ValueError("no dead letter")
    if "payload_base64" in members:
        payload = base64.b64decode(members["payload_base64"])
    else:
        payload = str(members.get("payload", "")).encode()
    words = orjson.dumps(members["words"]).decode() if "words" in members else ""
    origin, why = str(members.get("origin", "")), str(members.get("why", ""))
    return str(members["source"]), Letter(origin, why, payload, words)
