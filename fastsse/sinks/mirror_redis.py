"""A stream of Redis as the target of a mirror. The id of an entry is the position of its event, so
Redis itself refuses a repeat. The mirror continues behind the newest entry of the stream."""

import pathlib
from collections.abc import Sequence
from typing import Final

from fastsse.config.mirrors import MirrorRule
from fastsse.redis.connection import RedisAddress, RedisConnection
from fastsse.redis.errors import AnswerLost, RedisRefusal
from fastsse.redis.scripts import Script
from fastsse.sinks.mirrors import Record
from fastsse.sources.source import SourceAway

__all__ = ["RedisTarget"]

_WRITE: Final = Script("mirror", folder=pathlib.Path(__file__).parent)


class RedisTarget:
    """Writes to a stream. Loop thread only.

    Arguments:
        rule: the mirror.
        address: of Redis.
    """

    trouble: str | None = None

    def __init__(self, rule: MirrorRule, address: RedisAddress) -> None:
        self._rule = rule
        self._address = address
        self._link: RedisConnection | None = None

    async def open(self) -> str | None:
        """As Target."""
        try:
            if self._link is None or not self._link.is_open:
                await self.close()
                self._link = await RedisConnection.open(self._address)
            newest = await self._link.call(b"XREVRANGE", self._rule.to, b"+", b"-", b"COUNT", 1)
        except (AnswerLost, RedisRefusal) as fault:
            raise SourceAway(str(fault)) from None
        if not newest:
            return None
        entry_id, fields = newest[0]
        given = dict(zip(fields[::2], fields[1::2], strict=True))
        is_ours = given.get(b"mirror") == self._rule.name.encode()
        return str(entry_id, "ascii") if is_ours else None

    async def write(self, records: Sequence[Record]) -> Sequence[tuple[int, str]]:
        """As Target."""
        assert self._link is not None
        given: list[bytes | str | int] = [self._rule.name, self._rule.keep]
        for record in records:
            given += record
        try:
            await self._link.run(_WRITE, [self._rule.to.encode()], *given)
        except RedisRefusal as refusal:
            if "equal or smaller" in str(refusal):
                why = f"the stream {self._rule.to} has later entries of another writer"
                raise SourceAway(why) from None
            raise SourceAway(str(refusal)) from None
        except AnswerLost as lost:
            raise SourceAway(str(lost)) from None
        return ()

    async def close(self) -> None:
        """As Target."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()
