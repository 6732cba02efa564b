"""Dead letters in a Redis stream."""

from collections.abc import Sequence
from typing import Any, Final

from fastsse.redis.connection import RedisAddress, RedisConnection
from fastsse.redis.errors import AnswerLost, RedisRefusal
from fastsse.sources.deadletters import KeptLetter, Letter, LetterRefused
from fastsse.sources.source import SourceAway

__all__ = ["RedisLetters"]

# About the number of letters in a stream.
KEPT: Final = 10_000
PAGE: Final = 100


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

    async def read(self, count: int, skip: int = 0) -> Sequence[KeptLetter]:
        """As LetterStore. Letters of other sources in the stream are passed over."""
        found: list[KeptLetter] = []
        after = b"-"
        while len(found) < skip + count:
            entries = await self._call(b"XRANGE", self._stream, after, b"+", b"COUNT", PAGE)
            found += [
                kept
                for place, fields in entries
                if (kept := _kept(place, fields, self._source)) is not None
            ]
            if len(entries) < PAGE:
                break
            after = b"(" + entries[-1][0]
        return found[skip : skip + count]

    async def settle(self, done: Sequence[KeptLetter], failed: Sequence[KeptLetter]) -> None:
        """As LetterStore."""
        if done:
            await self._call(b"XDEL", self._stream, *(one.place for one in done))

    async def _call(self, *command: bytes | str | int) -> Any:
        assert self._link is not None
        try:
            return await self._link.call(*command)
        except (RedisRefusal, AnswerLost) as fault:
            raise SourceAway(str(fault)) from None

    async def close(self) -> None:
        """As LetterStore."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()


def _kept(place: bytes, fields: Sequence[bytes], source: str) -> KeptLetter | None:
    """The letter of an entry; None for one of another source."""
    named = dict(zip(fields[::2], fields[1::2], strict=False))
    if named.get(b"source") != source.encode():
        return None
    texts = [named.get(name, b"").decode("utf-8", "replace") for name in (b"origin", b"why")]
    words = named.get(b"words", b"").decode("utf-8", "replace")
    return KeptLetter(place, Letter(texts[0], texts[1], named.get(b"payload", b""), words))
