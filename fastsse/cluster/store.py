"""The control store of several nodes: what control services keep, as a hash in Redis, and a copy of
it in each node.

Each change is also an entry of a short stream, which every node follows. A node that was
disconnected reads the whole hash when it reconnects. Values of a `OneTimeStore` are not copied:
each read asks Redis.

Delayed events are in a hash of their own, and their changes have no value, because a node of
the version before writes values that are missing in the first hash again from its copy: an event
that was cancelled or published would return.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from fastsse.backbone import Done
from fastsse.backoff import Backoff
from fastsse.cluster.membership import Membership
from fastsse.cluster.messaging import RedisNodeMessaging
from fastsse.cluster.owned import RedisOwnedValues
from fastsse.cluster.roster import RedisRoster
from fastsse.config import Config
from fastsse.errors import FastsseError, Unavailable
from fastsse.events import Event
from fastsse.log import get_logger
from fastsse.redis.connection import (
    ConnectionOnDemand,
    RedisAddress,
    RedisConnection,
    while_connected,
)
from fastsse.redis.errors import AnswerLost, RedisRefusal
from fastsse.redis.keys import Keys
from fastsse.redis.opening import ask_when_ready

__all__ = ["RedisControlStore", "RedisOneTimeStore", "open_control_store"]

log = get_logger("redis")
BLOCK_MS: Final = 1_000
# A larger value is not written to the stream of changes too; nodes read it from the hash.
CHANGE_BYTES_MAX: Final = 4 * 1024
# Keys of delayed events. One node takes each, once. A node that was disconnected must not write it
# again.
DELAYED: Final = "schedule/p/"
CHANGES_KEPT: Final = 10_000
# The subject of the control service whose values one node owns.
OWNED: Final = "wakes"
CHANGES_READ: Final = 1_000


async def open_control_store(
    url: str, config: Config, publish: Callable[[Sequence[Event], Done], None]
) -> "RedisControlStore":
    """Reads what control services keep in a Redis, and makes this process one of its nodes.

    Arguments:
        publish: publishes the events of the roster.

    Waits and raises as `fastsse.backbone.redis.open_redis`.
    """
    address = RedisAddress(url, config.redis_timeout)
    keys = Keys(config.redis_stream)
    values = await ask_when_ready(address, config.redis_start, lambda link: _read_all(link, keys))
    membership = Membership(address, keys, config.redis_node_timeout)
    roster = RedisRoster(address, keys, membership, publish) if config.subscriptions else None
    owned = RedisOwnedValues(address, keys, OWNED, membership.base, config.redis_node_timeout)
    return RedisControlStore(address, keys, values, membership, roster, owned)


async def _read_all(link: RedisConnection, keys: Keys) -> Mapping[bytes, bytes]:
    """Both hashes."""
    hashes: Sequence[Sequence[bytes]] = await link.calls(
        [(b"HGETALL", keys.control), (b"HGETALL", keys.delayed)]
    )
    return {key: value for flat in hashes for key, value in zip(flat[::2], flat[1::2], strict=True)}


class RedisControlStore:
    """A node's copy. Loop thread only; see fastsse.control.service.ControlStore.

    Arguments:
        address, keys: where it is stored.
        values: the hash when the log was opened.
        membership: of this node.
        roster: the streams at all nodes; None if the option `subscriptions` is off.
        owned: what one node keeps for all.

    Attributes:
        one_time_store, messaging, roster, owned: as `ControlStore`.
    """

    def __init__(
        self,
        address: RedisAddress,
        keys: Keys,
        values: Mapping[bytes, bytes],
        membership: Membership,
        roster: RedisRoster | None,
        owned: RedisOwnedValues,
    ) -> None:
        self._address = address
        self._keys = keys
        self._values: dict[str, bytes] = {}
        self._delayed: dict[str, bytes] = {}
        for raw_key, value in values.items():
            key = raw_key.decode("utf-8", "replace")
            self._copy_of(key)[key] = value
        self._listeners: list[tuple[str, Callable[[str, bytes], None]]] = []
        self._unwritten: dict[str, bytes | None] = {}
        self._to_write = asyncio.Event()
        self._on_written: list[Callable[[bool], None]] = []
        self._link = ConnectionOnDemand(address)
        self._tasks: set[asyncio.Task[None]] = set()
        self.one_time_store: Final = RedisOneTimeStore(address, keys)
        self.messaging: Final = RedisNodeMessaging(address, keys, membership)
        self.roster: Final = roster
        self.owned: Final = owned
        self._membership = membership
        self._parts = (membership, self.messaging, owned, *(() if roster is None else (roster,)))

    def get(self, key: str) -> bytes | None:
        """The value, or None. O(1)."""
        return self._copy_of(key).get(key)

    def put(self, key: str, value: bytes | None) -> None:
        """Sets a key, or removes it with None. The other nodes receive the change soon after."""
        copy = self._copy_of(key)
        if copy.get(key) == value:
            return
        if value is None:
            copy.pop(key, None)
        else:
            copy[key] = value
        self._unwritten[key] = value
        self._to_write.set()

    def when_stored(self, done: Callable[[bool], None]) -> None:
        """Calls `done` when what was put before is in Redis."""
        if self._unwritten:
            self._on_written.append(done)
        else:
            done(True)

    def take(self, key: str, done: Callable[[bool | None], None]) -> None:
        """Removes a key in Redis."""

        async def take() -> None:
            outcome: bool | None = None
            try:
                link = await self._link.get()
                removed, _ = await link.calls(self._commands(key, None))
                outcome = removed == 1
            except (AnswerLost, RedisRefusal) as fault:
                log.warning("A delayed event can't be cancelled.", why=str(fault))
            if outcome is not None:
                self._copy_of(key).pop(key, None)
                self._unwritten.pop(key, None)
            done(outcome)

        task = asyncio.get_running_loop().create_task(take())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def items(self, prefix: str = "") -> Sequence[tuple[str, bytes]]:
        """The pairs whose keys begin so, in the order of keys. O(keys log keys)."""
        pairs = chain(self._values.items(), self._delayed.items())
        return sorted(pair for pair in pairs if pair[0].startswith(prefix))

    def listen(self, prefix: str, changed: Callable[[str, bytes], None]) -> None:
        """Calls `changed` with each value that another node puts under a key with this prefix."""
        self._listeners.append((prefix, changed))

    async def run(self) -> None:
        """Writes and follows until it is cancelled."""
        await asyncio.gather(
            while_connected(self._address, "writing what control services keep", self._write),
            while_connected(self._address, "following what control services keep", self._follow),
            *(part.run() for part in self._parts),
        )

    async def close(self) -> None:
        """Notifies other nodes that this one ends, and closes all connections."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._link.close()
        await self.one_time_store.close()
        if self.roster is not None:
            await self.roster.close()
        await self.owned.close()
        await self._membership.leave()

    async def _write(self, link: RedisConnection, backoff: Backoff) -> None:
        """Writes what waits. Unconfirmed writes are repeated: the same values to the same keys."""
        while True:
            await self._to_write.wait()
            self._to_write.clear()
            try:
                while self._unwritten:
                    key, value = next(iter(self._unwritten.items()))
                    await link.calls(self._commands(key, value))
                    backoff.reset()
                    if self._unwritten.get(key) is value:
                        del self._unwritten[key]
                waiting, self._on_written = self._on_written, []
                for done in waiting:
                    done(True)
            finally:
                if self._unwritten:
                    self._to_write.set()

    def _commands(self, key: str, value: bytes | None) -> "list[tuple[bytes | str | int, ...]]":
        trim = (b"MAXLEN", b"~", CHANGES_KEPT, b"*")
        # Nodes read what is not in the change from the hash.
        change: tuple[bytes | str | int, ...] = (b"XADD", self._keys.changes, *trim, b"k", key)
        if value is None:
            return [(b"HDEL", self._hash_of(key), key), change]
        if len(value) <= CHANGE_BYTES_MAX and not key.startswith(DELAYED):
            change = (*change, b"v", value)
        return [(b"HSET", self._hash_of(key), key, value), change]

    def _copy_of(self, key: str) -> dict[str, bytes]:
        return self._delayed if key.startswith(DELAYED) else self._values

    def _hash_of(self, key: str) -> bytes:
        return self._keys.delayed if key.startswith(DELAYED) else self._keys.control

    async def _follow(self, link: RedisConnection, backoff: Backoff) -> None:
        newest = await link.call(b"XREVRANGE", self._keys.changes, b"+", b"-", b"COUNT", 1)
        place: bytes = newest[0][0] if newest else b"0-0"
        kept = await _read_all(link, self._keys)
        for key, value in kept.items():
            self._learn(key, value)
        # Values that Redis has lost are written again. A delayed event that is missing was taken,
        # unless it was never written.
        self._write_again({k: v for k, v in self._values.items() if k.encode() not in kept})
        for name in [name for name in self._delayed if name.encode() not in kept]:
            self._forget_taken(name)
        while True:
            answer: Any = await link.call(
                b"XREAD", b"COUNT", CHANGES_READ, b"BLOCK", BLOCK_MS,
                b"STREAMS", self._keys.changes, place,
                wait_s=BLOCK_MS / 1000,
            )  # fmt: skip
            backoff.reset()
            if not answer:
                await self._check_hash(link)
            for place, fields in answer[0][1] if answer else ():  # noqa: B007
                if len(fields) == 4:
                    self._learn(fields[1], fields[3])
                elif len(fields) == 2:
                    await self._look_up(link, fields[1])

    async def _check_hash(self, link: RedisConnection) -> None:
        """Checks, while nothing changes, that the hash still exists. If it was evicted or deleted,
        it is written again, so that a node that starts later knows what was revoked."""
        if self._values and not await link.call(b"EXISTS", self._keys.control):
            log.warning(
                "Redis lost what control services keep; it is written again.",
                keys=len(self._values),
            )
            self._write_again(self._values)

    def _write_again(self, values: Mapping[str, bytes]) -> None:
        self._unwritten |= values
        self._to_write.set()

    def _forget_taken(self, key: str) -> None:
        """Drops a delayed event that Redis has no more: it was published or cancelled. One that is
        not written yet stays."""
        if key not in self._unwritten and self._delayed.pop(key, None) is not None:
            self._notify(key, b"")

    async def _look_up(self, link: RedisConnection, raw_key: bytes) -> None:
        """Reads a key that was changed or removed."""
        key = raw_key.decode("utf-8", "replace")
        value = await link.call(b"HGET", self._hash_of(key), raw_key)
        if value is not None:
            self._learn(raw_key, value)
            return
        if key.startswith(DELAYED):
            self._forget_taken(key)

    def _learn(self, raw_key: bytes, value: bytes) -> None:
        key = raw_key.decode("utf-8", "replace")
        copy = self._copy_of(key)
        if key in self._unwritten or copy.get(key) == value:
            return
        copy[key] = value
        self._notify(key, value)

    def _notify(self, key: str, value: bytes) -> None:
        for prefix, changed in self._listeners:
            if key.startswith(prefix):
                changed(key, value)


class RedisOneTimeStore:
    """A `OneTimeStore` in Redis: a key for each value, with its own expiry. Loop thread only. While
    Redis can't be reached, nothing is stored, and `get` answers with Unavailable."""

    def __init__(self, address: RedisAddress, keys: Keys) -> None:
        self._prefix = keys.prefix + b"vault:"
        self._link = ConnectionOnDemand(address)
        self._tasks: set[asyncio.Task[None]] = set()

    def put(self, key: bytes, value: bytes, life_ms: int, done: Callable[[bool], None]) -> None:
        """As `OneTimeStore`."""
        command = (b"SET", self._prefix + key, value, b"PX", max(1, life_ms), b"NX")
        self._ask(command, lambda answer: done(answer is not None))

    def get(self, key: bytes, done: Callable[[bytes | FastsseError | None], None]) -> None:
        """As `OneTimeStore`."""
        self._ask((b"GET", self._prefix + key), done, Unavailable("tickets", retry_after_s=1))

    def exchange(
        self, key: bytes, value: bytes, life_ms: int, done: Callable[[bytes | None], None]
    ) -> None:
        """As `OneTimeStore`. Needs Redis 6.2."""
        end = (b"PX", max(1, life_ms), b"GET")
        self._ask((b"SET", self._prefix + key, value, *end), done)

    def renew(self, key: bytes, life_ms: int, done: Callable[[bool | None], None]) -> None:
        """As `OneTimeStore`."""
        command = (b"PEXPIRE", self._prefix + key, max(1, life_ms))
        self._ask(command, lambda answer: done(None if answer is None else answer == 1))

    async def close(self) -> None:
        """Closes the connection. Open requests get the answer that nothing is stored."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._link.close()

    def _ask(
        self,
        command: tuple[bytes | str | int, ...],
        done: Callable[[Any], None],
        otherwise: FastsseError | None = None,
    ) -> None:
        async def ask() -> None:
            answer: Any = otherwise
            try:
                answer = await (await self._link.get()).call(*command)
            except (AnswerLost, RedisRefusal) as fault:
                log.warning("A ticket or feed can't be kept or read.", why=str(fault))
            finally:
                done(answer)

        task = asyncio.get_running_loop().create_task(ask())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
