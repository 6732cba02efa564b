"""Values in Redis that one node at a time owns.

A key with an expiry names the owner, which renews the key eight times in its life. Each ownership
has a mark of its own. The script of a write compares the mark, so a node that was paused and is no
longer the owner changes nothing. When the owner dies, the next node that asks becomes the owner and
reads the values.
"""

import asyncio
import contextlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Final

from fastsse.backoff import Backoff
from fastsse.cluster.membership import BEATS_A_LIFE, LEAVE_S
from fastsse.control.cluster import OnOwned
from fastsse.log import get_logger
from fastsse.redis.connection import RedisAddress, RedisConnection, while_connected
from fastsse.redis.errors import AnswerLost, RedisRefusal
from fastsse.redis.keys import Keys
from fastsse.redis.scripts import Script

__all__ = ["RedisOwnedValues"]

log = get_logger("redis")
_HERE: Final = pathlib.Path(__file__).parent
OWN: Final = Script("own", folder=_HERE)
WRITE: Final = Script("own_write", folder=_HERE)
# Values in one write, because the arguments of a script are in memory together.
WRITTEN_AT_ONCE: Final = 64


class RedisOwnedValues:
    """The `OwnedValues` of a node. Loop thread only.

    Arguments:
        address, keys: the Redis that all nodes use.
        subject: of the control service that uses the values.
        node: the name of this node.
        life_s: the key of the owner expires after so long without a renewal.
    """

    def __init__(
        self, address: RedisAddress, keys: Keys, subject: str, node: bytes, life_s: float
    ) -> None:
        self.own: Final = node
        self.owner = b""
        self._address: Final = address
        prefix = keys.prefix + subject.encode()
        self._keys: Final = [prefix + b":owner", prefix + b":owners"]
        self._values_key: Final = prefix
        self._life_s: Final = life_s
        self._listener: OnOwned | None = None
        self._mark = b""
        # No other node can be the owner before this time of the loop's clock.
        self._sure_until_s = 0.0
        self._values: dict[str, bytes] = {}
        self._unwritten: dict[str, bytes | None] = {}
        self._on_written: list[Callable[[bool], None]] = []
        self._to_write: Final = asyncio.Event()

    def begin(self, listener: OnOwned) -> None:
        """As `OwnedValues`."""
        self._listener = listener

    @property
    def is_owned(self) -> bool:
        """As `OwnedValues`."""
        return bool(self._mark) and asyncio.get_running_loop().time() < self._sure_until_s

    def get(self, key: str) -> bytes | None:
        """As `OwnedValues`. O(1)."""
        return self._values.get(key)

    def items(self, prefix: str = "") -> Sequence[tuple[str, bytes]]:
        """As `OwnedValues`. O(keys log keys)."""
        return sorted(pair for pair in self._values.items() if pair[0].startswith(prefix))

    def put(self, key: str, value: bytes | None) -> None:
        """As `OwnedValues`."""
        if not self._mark:
            return
        if value is None:
            self._values.pop(key, None)
        else:
            self._values[key] = value
        self._unwritten[key] = value
        self._to_write.set()

    def when_stored(self, done: Callable[[bool], None]) -> None:
        """As `OwnedValues`."""
        if not self._mark:
            done(False)
        else:
            self._on_written.append(done)
            self._to_write.set()

    async def run(self) -> None:
        """Asks for the ownership, renews it, and writes, until it is cancelled."""
        if self._listener is not None:
            await while_connected(self._address, "owning values of one node", self._work)

    async def close(self) -> None:
        """Ends the ownership, so that another node can be the owner at once. Bounded in time."""
        mark = self._mark
        self._lose()
        if not mark:
            return
        with contextlib.suppress(AnswerLost, RedisRefusal, TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                link = await RedisConnection.open(self._address)
                try:
                    await link.run(OWN, self._keys, self.own, mark, 0)
                finally:
                    await link.close()

    async def _work(self, link: RedisConnection, backoff: Backoff) -> None:
        loop = asyncio.get_running_loop()
        renewed_s = -self._life_s
        while True:
            if loop.time() - renewed_s >= self._life_s / BEATS_A_LIFE:
                renewed_s = loop.time()
                await self._renew(link, renewed_s)
                backoff.reset()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(renewed_s + self._life_s / BEATS_A_LIFE - loop.time()):
                    await self._to_write.wait()
            self._to_write.clear()
            if self._mark:
                await self._write(link)

    async def _renew(self, link: RedisConnection, now_s: float) -> None:
        mark: bytes = await link.run(
            OWN, self._keys, self.own, self._mark, round(self._life_s * 1000)
        )
        self.owner = mark.partition(b" ")[0]
        if mark == self._mark:
            self._sure_until_s = now_s + self._life_s
            return
        self._lose()
        if self.owner == self.own:
            flat = await link.call(b"HGETALL", self._values_key)
            pairs = zip(flat[::2], flat[1::2], strict=True)
            self._values = {key.decode("utf-8", "replace"): value for key, value in pairs}
            self._mark, self._sure_until_s = mark, now_s + self._life_s
            assert self._listener is not None
            self._listener.on_gained()

    def _lose(self) -> None:
        if not self._mark:
            return
        self._mark = b""
        self._values, self._unwritten = {}, {}
        waiting, self._on_written = self._on_written, []
        assert self._listener is not None
        self._listener.on_lost()
        for done in waiting:
            done(False)

    async def _write(self, link: RedisConnection) -> None:
        """Writes what waits. A write without an answer is repeated with the same values."""
        waiting, self._on_written = self._on_written, []
        try:
            while self._unwritten:
                some = dict(list(self._unwritten.items())[:WRITTEN_AT_ONCE])
                arguments: list[bytes | str] = []
                for key, value in some.items():
                    arguments += (b"d", key, b"") if value is None else (b"s", key, value)
                names = [self._keys[0], self._values_key]
                if not await link.run(WRITE, names, self._mark, *arguments):
                    log.warning(
                        "A write was refused: another node owns the values now.", owner=self.owner
                    )
                    self._on_written = waiting + self._on_written
                    waiting = []
                    self._lose()
                    return
                for key, value in some.items():
                    if key in self._unwritten and self._unwritten[key] is value:
                        del self._unwritten[key]
            done, waiting = waiting, []
            for call in done:
                call(True)
        finally:
            # After a failure they wait for the next connection.
            self._on_written = waiting + self._on_written
            if self._on_written or self._unwritten:
                self._to_write.set()
