"""Dead letters: messages that could not become an event, kept for inspection and replay."""

import asyncio
import json
from collections import Counter, deque
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from fastsse.backoff import Backoff
from fastsse.log import get_logger
from fastsse.redis.health import Outage, SkipLog
from fastsse.sources.source import Message, SourceAway

__all__ = ["DeadLetters", "KeptLetter", "Letter", "LetterRefused", "LetterStore", "letter_of"]

log = get_logger("sources")
# The number and the bytes of letters that may wait to be written.
WAITING_MAX: Final = 1_000
WAITING_BYTES: Final = 16 * 1024 * 1024
# Of a longer payload only the origin is kept, because such a letter would displace all others.
PAYLOAD_BYTES_MAX: Final = 8 * 1024 * 1024
WORDS_BYTES_MAX: Final = 16 * 1024
WRITE_MAX: Final = 100
# Counted overhead of each.
_COST_BYTES: Final = 256
_NOT_KEPT: Final = "bytes are not kept)"
# At the end, waiting letters are written for at most this time.
END_S: Final = 0.5


class Letter(NamedTuple):
    """A message that could not become an event.

    Attributes:
        origin: its place in the source.
        why: what is wrong with it.
        payload: its content.
        words: what its templates would get, as JSON; empty: unknown.
    """

    origin: str
    why: str
    payload: bytes
    words: str = ""

    @property
    def has_payload(self) -> bool:
        """Whether the payload is here, so that it can be tried again."""
        return not self.why.endswith(_NOT_KEPT)


class KeptLetter(NamedTuple):
    """A letter in its store.

    Attributes:
        place: for the store alone.
        letter: see there.
    """

    place: bytes
    letter: Letter


class LetterRefused(Exception):
    """A letter can't be written, now or later. The text says why."""


class LetterStore(Protocol):
    """Where the dead letters of a source are kept."""

    async def open(self) -> None:
        """Connects. Raises SourceAway."""

    async def write(self, letters: Sequence[Letter]) -> int:
        """Writes letters in order and returns how many of the first were written, at least one.
        Raises LetterRefused about the first, or SourceAway."""

    async def read(self, count: int, skip: int = 0) -> Sequence[KeptLetter]:
        """The oldest letters, behind `skip` others that were read and stayed. Raises SourceAway."""

    async def settle(self, done: Sequence[KeptLetter], failed: Sequence[KeptLetter]) -> None:
        """Removes letters that were read; those that failed stay. Raises SourceAway."""

    async def close(self) -> None:
        """Disconnects. Raises nothing."""


class DeadLetters:
    """Writes to a source's dead-letter store, if it has one. A store that is away delays nothing.

    Arguments:
        store: None writes nothing.
        source: the source's name.
        counts: has those that are lost.

    Attributes:
        trouble: why letters can't be written now; None: all is well.
    """

    trouble: str | None = None

    def __init__(self, store: LetterStore | None, source: str, counts: "Counter[str]") -> None:
        self._store = store
        self._source = source
        self._counts = counts
        self._letters: deque[Letter] = deque()
        self._waiting_bytes = 0
        self._added = asyncio.Event()
        self._tried = asyncio.Event()
        self._losses = SkipLog()
        self._outage = Outage(
            "The store of dead letters is away.",
            "The store of dead letters is there again.",
            source=source,
        )

    @property
    def waiting(self) -> int:
        """Letters that wait to be written."""
        return len(self._letters)

    def add(self, letter: Letter) -> None:
        """Queues a letter. If too many wait already it is dropped and counted."""
        if self._store is None:
            return
        is_full = len(self._letters) >= WAITING_MAX
        if is_full or self._waiting_bytes + _size_of(letter) > WAITING_BYTES:
            self._lose("too much waits to be written")
            return
        self._letters.append(letter)
        self._waiting_bytes += _size_of(letter)
        self._added.set()

    async def settled(self, share: float = 0.0) -> None:
        """Returns when all letters are written, or `trouble` says why they can't be now. What they
        are about is acknowledged only then, so a kill loses no letter that can be written.

        Arguments:
            share: of the bounds, which letters may still take.
        """
        while self._letters and self.trouble is None and self._used() > share:
            self._tried.clear()
            await self._tried.wait()

    def _used(self) -> float:
        return max(len(self._letters) / WAITING_MAX, self._waiting_bytes / WAITING_BYTES)

    async def run(self) -> None:
        """Writes until it is cancelled, then writes the waiting letters for a bounded time."""
        try:
            while True:
                await self._added.wait()
                self._added.clear()
                await self._write_waiting()
        finally:
            try:
                async with asyncio.timeout(END_S):
                    await self._write_waiting()
            except TimeoutError:
                log.warning("Dead letters are lost.", source=self._source, count=len(self._letters))

    async def _write_waiting(self) -> None:
        backoff = Backoff()
        store = self._store
        while self._letters and store is not None:
            await backoff.wait()
            try:
                await store.open()
                await self._write_over(store, backoff)
            except SourceAway as fault:
                self.trouble = str(fault)
                self._tried.set()
                if backoff.tries > 1:
                    self._outage.lasts(str(fault), asyncio.get_running_loop().time())
            finally:
                await store.close()

    async def _write_over(self, store: LetterStore, backoff: Backoff) -> None:
        while self._letters:
            first = [self._letters[at] for at in range(min(len(self._letters), WRITE_MAX))]
            try:
                count = await store.write(first)
            except LetterRefused as refusal:
                self._lose(str(refusal))
                count = 1
            for _ in range(count):
                self._waiting_bytes -= _size_of(self._letters.popleft())
            self.trouble = None
            self._tried.set()
            self._outage.is_over()
            backoff.reset()

    def _lose(self, why: str) -> None:
        self._counts["sources_letters_lost"] += 1
        unlogged = self._losses.take(asyncio.get_running_loop().time())
        if unlogged is not None:
            log.warning(
                "A dead letter is lost.", source=self._source, why=why, unlogged_before=unlogged
            )


def letter_of(message: Message, why: str) -> Letter:
    """The letter of a message. Raises nothing."""
    payload = message.payload
    if len(payload) > PAYLOAD_BYTES_MAX:
        why = f"{why} (its {len(payload)} {_NOT_KEPT}"
        payload = b""
    return Letter(message.origin, why, payload, _words_of(message))


def _words_of(message: Message) -> str:
    try:
        words = message.words()
        # Words that are made when they are asked for.
        whole = getattr(words, "whole", None)
        # Escaped, because bytes that are not text are lone surrogates.
        text = json.dumps(dict(words) if whole is None else whole())
    except ValueError:
        return ""
    return text if len(text) <= WORDS_BYTES_MAX else ""


def _size_of(letter: Letter) -> int:
    return _COST_BYTES + sum(map(len, letter))
