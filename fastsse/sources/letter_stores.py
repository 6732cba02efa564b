"""Stores of dead letters: a Redis stream, and a file of JSON lines."""

import asyncio
import base64
import os
import pathlib
from collections.abc import Sequence
from typing import Final

import orjson

from fastsse.redis.connection import RedisAddress, RedisConnection
from fastsse.redis.errors import AnswerLost, RedisRefusal
from fastsse.sources.deadletters import Letter, LetterRefused
from fastsse.sources.source import SourceAway

__all__ = ["FileLetters", "RedisLetters", "letter_line", "read_letter_line"]

# About the number of letters in a stream.
KEPT: Final = 10_000
# A larger file becomes PATH.1, whose earlier content is lost.
FILE_BYTES_MAX: Final = 64 * 1024 * 1024


class RedisLetters:
    """A Redis stream, of about the newest 10,000 letters.

    Arguments:
        address: where it is.
        stream: its name.
        source: the source's name.
    """

    def __init__(self, address: RedisAddress, stream: str, source: str) -> None:
        self._address = address
        self._stream = stream
        self._source = source
        self._link: RedisConnection | None = None

    async def open(self) -> None:
        """As LetterStore."""
        try:
            self._link = await RedisConnection.open(self._address)
        except (AnswerLost, RedisRefusal) as fault:
            raise SourceAway(str(fault)) from None

    async def write(self, letters: Sequence[Letter]) -> int:
        """As LetterStore."""
        letter, link = letters[0], self._link
        assert link is not None
        more = (b"words", letter.words) if letter.words else ()
        try:
            await link.call(
                b"XADD", self._stream, b"MAXLEN", b"~", KEPT, b"*",
                b"source", self._source, b"origin", letter.origin, b"why", letter.why,
                b"payload", letter.payload, *more,
            )  # fmt: skip
        except RedisRefusal as refusal:
            raise LetterRefused(str(refusal)) from None
        except AnswerLost as fault:
            raise SourceAway(str(fault)) from None
        return 1

    async def close(self) -> None:
        """As LetterStore."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()


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

    async def close(self) -> None:
        """As LetterStore."""


def _append(path: pathlib.Path, lines: bytes) -> None:
    """Appends lines, all or none, so that a line is never cut."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size_bytes = os.fstat(file).st_size
        written = 0
        try:
            while written < len(lines):
                written += os.write(file, memoryview(lines)[written:])
        except OSError:
            os.ftruncate(file, size_bytes)
            raise
    finally:
        os.close(file)
    if size_bytes + written > FILE_BYTES_MAX:
        path.replace(path.with_name(path.name + ".1"))


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
