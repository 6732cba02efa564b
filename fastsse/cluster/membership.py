"""Membership: which nodes are alive. Each node reports to Redis regularly.

A node has a base, which never changes while its process runs, and a name: the base and a number. A
node that did not report for too long counts as dead, and another node removes the entries under its
name. If its process was only paused or disconnected, it continues under the next name and writes
all its streams again.
"""

import asyncio
import contextlib
import os
import pathlib
from collections.abc import Callable
from typing import Final

from fastsse.backoff import Backoff
from fastsse.control.stream_lookup import NODE_BYTES
from fastsse.log import get_logger
from fastsse.redis.connection import RedisAddress, RedisConnection, while_connected
from fastsse.redis.errors import AnswerLost, RedisRefusal
from fastsse.redis.keys import FORMAT, Keys
from fastsse.redis.scripts import Script

__all__ = ["NAME_BYTES", "Membership", "base_of"]

log = get_logger("redis")
_HERE: Final = pathlib.Path(__file__).parent
BEAT: Final = Script("beat", folder=_HERE)
NAME_BYTES: Final = NODE_BYTES + 4
# Reports within the time after which a silent node counts as dead.
BEATS_A_LIFE: Final = 8
TASK_S: Final = 10.0
# The last report of a node that ends may take this long.
LEAVE_S: Final = 1.0


def base_of(name: bytes) -> bytes:
    """The base of a node's name."""
    return name[:NODE_BYTES]


class Membership:
    """Reports that this node is alive. Loop thread only.

    Arguments:
        address, keys: the Redis that all nodes use.
        life_s: this node counts as dead when it did not report for so long.
        task_s: a survivor that removes a dead node has this time for each step. After it another
            node takes the task over.

    Attributes:
        base: of this node.
        task_ms: as `task_s`.
        name: the present name of this node; empty before it has one.
        alive: the bases of all living nodes with this one, from Redis's last answer.
        format: the format in which records are written, from the last answer; 0 before the first.
        on_beat: called after each answer of Redis.
        on_task: called with the name of a dead node that this one must remove; None while this node
            takes no task.
        on_named: called when this node has another name.
    """

    def __init__(
        self, address: RedisAddress, keys: Keys, life_s: float, task_s: float = TASK_S
    ) -> None:
        self.base: Final = os.urandom(NODE_BYTES // 2).hex().encode()
        self.name = b""
        self.alive: frozenset[bytes] = frozenset()
        self.format = 0
        self.on_beat: list[Callable[[], None]] = []
        self.on_task: Callable[[bytes], None] | None = None
        self.on_named: Callable[[], None] = _nothing
        self._address = address
        self._keys = keys
        self._life_ms = round(life_s * 1000)
        self.task_ms: Final = round(task_s * 1000)
        self._count = 0
        self._before = b""
        self._named = asyncio.Event()
        self._hurry = asyncio.Event()

    async def wait_for_name(self) -> bytes:
        """This node's name, when it has one."""
        await self._named.wait()
        return self.name

    def rename(self, name: bytes) -> None:
        """Takes another name, if `name` is still the present one. Call it when the node counted as
        dead, or when all its streams must be written again."""
        if name and name == self.name:
            log.warning("This node registers again under another name.", before=name.decode())
            self._before, self.name = name, b""
            self._named.clear()
            self._hurry.set()

    async def run(self) -> None:
        """Reports until it is cancelled."""
        await while_connected(self._address, "reporting that this node is alive", self._beat_on)

    async def leave(self) -> None:
        """Reports that this node ends, so that others remove it at once. Bounded in time."""
        name, self.name = self.name, b""
        if not name:
            return
        with contextlib.suppress(AnswerLost, RedisRefusal, TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                link = await RedisConnection.open(self._address)
                try:
                    await self._beat(link, name, b"", 0)
                finally:
                    await link.close()

    async def _beat_on(self, link: RedisConnection, backoff: Backoff) -> None:
        while True:
            name = self.name or b"%b%04x" % (self.base, self._count)
            task_ms = 0 if self.on_task is None else self.task_ms
            kind = b"0" if self.name else b"1"
            answer, task, alive, written = await self._beat(link, name, kind, task_ms)
            backoff.reset()
            self._note_format(written)
            self._take(name, answer, frozenset(map(base_of, alive)))
            if task and self.on_task is not None:
                self.on_task(task)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._life_ms / 1000 / BEATS_A_LIFE):
                    await self._hurry.wait()
            self._hurry.clear()

    def _take(self, name: bytes, answer: bytes, alive: frozenset[bytes]) -> None:
        if answer == b"gone":
            self.rename(name)
        elif answer == b"here" and not self.name:
            self.name = name
            self._count = (self._count + 1) % 0x10000
            self._named.set()
            self.on_named()
        self.alive = alive
        for call in self.on_beat:
            call()

    def _note_format(self, written: int) -> None:
        if written == self.format:
            return
        if written < FORMAT:
            log.warning(
                "A node of an earlier version is alive: records are written in its format.",
                format=written,
            )
        elif self.format:
            log.info("All nodes read the newest format of records.", format=written)
        self.format = written

    async def _beat(
        self, link: RedisConnection, name: bytes, kind: bytes, task_ms: int
    ) -> tuple[bytes, bytes, list[bytes], int]:
        keys = self._keys
        names = [keys.nodes, keys.dead, keys.heard]
        answer, task, alive, written = await link.run(
            BEAT, names, keys.prefix, name, self._life_ms, kind, self._before, task_ms, FORMAT
        )
        return answer, task, alive, int(written)


def _nothing() -> None:
    """The default of `on_named`."""
