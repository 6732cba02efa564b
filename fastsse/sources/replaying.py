"""Replay: dead letters are made into events again, by the rule as it is now."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from fastsse.directives import Producer, producer_key
from fastsse.log import get_logger
from fastsse.sources.deadletters import KeptLetter, Letter, LetterStore
from fastsse.sources.payloads import Maker
from fastsse.sources.source import SourceAway, Words
from fastsse.sources.source_publisher import Publish, SourcePublisher

__all__ = ["Replay", "shown"]

log = get_logger("sources")
CHUNK: Final = 100
#: Of a payload, a list shows so many bytes.
SHOWN_BYTES: Final = 1_024


class Replay:
    """Replays the letters of one source. Loop thread only.

    A letter whose event is in the log is removed; one that still can't become an event stays. An
    event is known by its letter's content for `producer_window`, so a replay that was cut and runs
    again repeats none.

    Arguments:
        source: its name.
        store: of its letters; not opened.
        maker: makes events.
        publish: appends them.
        count: the most letters that are tried.
    """

    def __init__(
        self, source: str, store: LetterStore, maker: Maker, publish: Publish, count: int
    ) -> None:
        self._source: Final = source
        self._store: Final = store
        self._left = count
        self._counts: Counter[str] = Counter()
        self._refused = _Refused()
        self._publisher = SourcePublisher(source, maker, publish, self._counts, self._refused)
        self._trouble: str | None = None
        self._is_running = True
        self._failed = 0

    @property
    def state(self) -> dict[str, Any]:
        """For operators: whether it runs, and what became of the letters so far."""
        return {
            "state": "running" if self._is_running else "failed" if self._trouble else "done",
            "events": self._counts["sources_events"] + self._counts["sources_repeats"],
            "filtered": self._counts["sources_filtered"],
            "set_aside": self._failed,
            "trouble": self._trouble,
        }

    async def run(self) -> None:
        """Runs to the end, or until it is cancelled."""
        try:
            await self._store.open()
            while self._left > 0 and await self._replay_chunk():
                pass
        except SourceAway as fault:
            self._trouble = str(fault)
        finally:
            self._is_running = False
            await self._store.close()
            log.info("Dead letters were replayed.", source=self._source, **self.state)

    async def _replay_chunk(self) -> bool:
        kept = await self._store.read(min(CHUNK, self._left), skip=self._failed)
        self._left -= len(kept)
        usable = [one for one in kept if one.letter.has_payload]
        await self._publisher.take([_LetterMessage(self._source, one.letter) for one in usable])
        failed = [one for one in kept if not one.letter.has_payload or self._refused.has(one)]
        self._refused.clear()
        done = [one for one in kept if one not in failed]
        await self._store.settle(done, failed)
        self._failed += len(failed)
        return bool(kept)


class _Refused:
    """The letters of messages that are no events now either."""

    waiting = 0

    def __init__(self) -> None:
        self._found: set[tuple[str, bytes]] = set()

    def add(self, letter: Letter) -> None:
        """Takes what the publisher sets aside."""
        self._found.add((letter.origin, letter.payload))

    async def settled(self, share: float = 0.0) -> None:
        """Returns at once: they are still in their store."""

    def has(self, kept: KeptLetter) -> bool:
        """Whether a letter was set aside again."""
        return (kept.letter.origin, kept.letter.payload) in self._found

    def clear(self) -> None:
        """Forgets them."""
        self._found.clear()


class _LetterMessage:
    """A letter as the message that it was."""

    def __init__(self, source: str, letter: Letter) -> None:
        self._words = letter.words
        self.origin: Final = letter.origin
        self.payload: Final = letter.payload
        text = b"%b\0%b" % (letter.origin.encode("utf-8", "replace"), letter.payload)
        name = hashlib.blake2b(text, digest_size=16).digest()
        self.producer: Producer | None = Producer(producer_key(f"letters/{source}", name), 0, 0)

    def words(self) -> Words:
        """As Message."""
        return dict(json.loads(self._words)) if self._words else {}


def shown(kept: Sequence[KeptLetter]) -> list[dict[str, Any]]:
    """Letters for operators, as JSON values. Long payloads are cut."""
    return [
        {
            "origin": one.letter.origin.encode("utf-8", "replace").decode(),
            "why": one.letter.why.encode("utf-8", "replace").decode(),
            "payload": one.letter.payload[:SHOWN_BYTES].decode("utf-8", "replace"),
            "bytes": len(one.letter.payload),
        }
        for one in kept
    ]
