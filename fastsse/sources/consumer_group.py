"""Consumer groups: a reader's place in a Redis stream, and its unconfirmed entries.

Redis keeps both. A reader has its own name while it runs. So entries that are pending under this
name were read on a lost connection, and are read first on the next one.
"""

import asyncio
import contextlib
import os
import pathlib
from collections.abc import Sequence
from typing import Any, Final

from fastsse.log import get_logger
from fastsse.redis.connection import RedisConnection
from fastsse.redis.errors import AnswerLost, RedisRefusal
from fastsse.redis.scripts import Script

__all__ = ["ConsumerGroup", "Entries", "id_of"]

log = get_logger("sources")
# How long Redis blocks a read without entries. A read is never cancelled: Redis could give the next
# entry to the lost reader, and it would be taken over late and out of order.
BLOCK_MS: Final = 500
# An entry that is unconfirmed for this long is taken over by another reader.
LEFT_ALONE_MS: Final = 10_000
# The name of a killed reader is removed from the group after this time.
GONE_MS: Final = 10 * 60 * 1000
HANDED_BACK_MS: Final = 24 * 60 * 60 * 1000
NAME_PREFIX: Final = b"fastsse-"

Entries = Sequence[tuple[bytes, Sequence[bytes] | None]]
"""Ids and fields, alternately; no fields for an entry that was deleted since it was read."""

_HERE: Final = pathlib.Path(__file__).parent
_RELEASE: Final = Script("release", folder=_HERE)
_TIDY: Final = Script("tidy", folder=_HERE)


class ConsumerGroup:
    """One reader of a group. All methods raise AnswerLost and Refusal unless said otherwise.

    Arguments:
        stream, group: their names.
        first: where a new group begins: `$` for entries from now on, `0` for all.
    """

    def __init__(self, stream: str, group: str, first: bytes = b"$") -> None:
        self._first: Final = first
        self._stream: Final = stream.encode()
        self._group: Final = group.encode()
        self._reader: Final = NAME_PREFIX + os.urandom(8).hex().encode()
        # The last entry that the group had delivered at the last check.
        self._place: bytes | None = None
        self._published: Sequence[bytes] = ()
        self._cut_off_until_s = 0.0

    async def begin(self, link: RedisConnection) -> None:
        """Continues with the entries of this reader, or creates the group if there is none.

        A new group begins where it is configured to. A group that was deleted meanwhile continues
        where it was.
        """
        await self._make(link)
        await self.confirm(link)
        # Redis may still deliver entries to an interrupted read. They belong to this reader and
        # come first.
        await asyncio.sleep(self._cut_off_until_s - asyncio.get_running_loop().time())

    async def read(self, link: RedisConnection, most: int) -> Entries:
        """Unread entries, at most `most`; none if no entry came in the blocking time."""
        self._cut_off_until_s = asyncio.get_running_loop().time() + BLOCK_MS / 1000
        entries = await self._read(link, most, b">", b"BLOCK", BLOCK_MS)
        self._cut_off_until_s = 0.0
        if entries:
            self._place = entries[-1][0]
        return entries

    async def read_own(self, link: RedisConnection, most: int) -> Entries:
        """The unconfirmed entries of this reader, the oldest first."""
        return await self._read(link, most, b"0")

    async def claim(self, link: RedisConnection, place: bytes, most: int) -> bytes:
        """Takes over entries that other readers abandoned, from a place on. Returns where to
        continue, `0-0` at the end."""
        answer = await link.call(
            b"XAUTOCLAIM", self._stream, self._group, self._reader, LEFT_ALONE_MS, place,
            b"COUNT", most, b"JUSTID",
        )  # fmt: skip
        return bytes(answer[0])

    async def confirm(self, link: RedisConnection, ids: Sequence[bytes] = ()) -> None:
        """Confirms entries that are in the log. If Redis does not receive this, it is sent again
        before the next read. So nothing is published twice while this reader runs."""
        self._published = [*self._published, *ids]
        if self._published:
            await link.call(b"XACK", self._stream, self._group, *self._published)
        self._published = ()

    async def last_delivered(self, link: RedisConnection) -> bytes:
        """The last entry that the group was given; where it would begin, if there is no group."""
        self._place = None
        await self._look(link)
        return self._place or self._first

    async def tidy(self, link: RedisConnection) -> None:
        """Removes readers that are gone, if the user has the right to."""
        with contextlib.suppress(RedisRefusal):
            await link.run(_TIDY, [self._stream], self._group, NAME_PREFIX, GONE_MS)

    async def release(self, link: RedisConnection) -> None:
        """Releases unconfirmed entries and leaves the group. Raises nothing: unreleased entries are
        taken over later."""
        with contextlib.suppress(AnswerLost, RedisRefusal):
            await self.confirm(link)
            await link.run(_RELEASE, [self._stream], self._group, self._reader, HANDED_BACK_MS)

    async def _read(
        self, link: RedisConnection, most: int, after: bytes, *options: bytes | int
    ) -> Entries:
        answer: Any = await link.call(
            b"XREADGROUP", b"GROUP", self._group, self._reader, b"COUNT", most, *options,
            b"STREAMS", self._stream, after,
            wait_s=BLOCK_MS / 1000,
        )  # fmt: skip
        entries: Entries = answer[0][1] if answer else ()
        return entries

    async def _make(self, link: RedisConnection) -> None:
        place = self._place
        try:
            await link.call(
                b"XGROUP", b"CREATE", self._stream, self._group, place or self._first, b"MKSTREAM"
            )
        except RedisRefusal as refusal:
            if "BUSYGROUP" not in str(refusal):
                raise
        else:
            log.info(
                "A group of a stream was made.",
                stream=self._stream.decode(),
                group=self._group.decode(),
                after=(place or self._first).decode(),
            )
            if place is not None:
                await self._restart_in_new_stream(link, place)
        await self._look(link)

    async def _restart_in_new_stream(self, link: RedisConnection, place: bytes) -> None:
        """A stream that ends below the last read entry was deleted, so all its entries are new."""
        facts = _pairs(await link.call(b"XINFO", b"STREAM", self._stream))
        if id_of(facts[b"last-generated-id"]) < id_of(place):
            await link.call(b"XGROUP", b"SETID", self._stream, self._group, b"0")

    async def _look(self, link: RedisConnection) -> None:
        """The place of the group. Without the right to ask for it the reader starts again if the
        group is lost."""
        with contextlib.suppress(RedisRefusal):
            for flat in await link.call(b"XINFO", b"GROUPS", self._stream):
                facts = _pairs(flat)
                if facts[b"name"] == self._group:
                    self._place = facts[b"last-delivered-id"]


def id_of(text: bytes) -> tuple[int, int]:
    """An entry's id, in the order of the stream."""
    ms, _, n = text.partition(b"-")
    return int(ms), int(n)


def _pairs(flat: Sequence[Any]) -> dict[bytes, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
