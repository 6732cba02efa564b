"""Node messaging: control services of one node send messages to those of the others, by
Redis's pub/sub.

Redis stores no message, so messages are numbered. Every node sends the number of its last message
regularly (each time that it reports to Redis). A node requests a full copy from another node when
it misses a number of that node, when it starts to listen, and when it finds a node that it does not
know. The copy comes on a channel of its own: first the number of the last message that the copy
contains, then pages, and between them newer messages. One connection carries all of it in the order
of sending, so the state of a node is complete again after the copy, and nothing is sent twice
without need. `fastsse.cluster.full_copies` sends the pages.
"""

import asyncio
import contextlib
import struct
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from redis import exceptions

from fastsse.backoff import Backoff
from fastsse.cluster.full_copies import FullCopies
from fastsse.cluster.membership import Membership
from fastsse.control.stream_lookup import NODE_BYTES
from fastsse.log import get_logger
from fastsse.redis.connection import RedisAddress, RedisConnection, while_connected
from fastsse.redis.errors import AnswerLost
from fastsse.redis.keys import Keys

__all__ = ["RedisNodeMessaging"]

log = get_logger("redis")
# Bytes that may wait to be sent. Above it all of them are dropped, and nodes request full copies.
QUEUE_BYTES_MAX: Final = 16 * 1024 * 1024
# No page of a full copy is added while more bytes than this wait; also the bytes sent in one batch.
HIGH_WATER_BYTES: Final = 1024 * 1024
# Messages in one batch.
BATCH_MESSAGES_MAX: Final = 256
# Memory of a waiting message in addition to its text.
_MESSAGE_COST_BYTES: Final = 256
# A connection that is silent for so long is pinged, and replaced if it does not answer.
PING_S: Final = 2.0

_HEAD: Final = struct.Struct(f"<c{NODE_BYTES}sQB")  # kind, sender, number, length of the subject
# Kinds of messages.
_NUMBERED: Final = b"n"
_LAST_NUMBER: Final = b"@"
_UNNUMBERED: Final = b"d"
_COPY_REQUEST: Final = b"?"
_COPY_BEGINS: Final = b"w"
_COPY_PAGE: Final = b"p"
_PAGE_CONFIRMED: Final = b"c"


class _Subscription(NamedTuple):
    on_message: Callable[[bytes, bytes], None]
    on_node_gone: Callable[[bytes], None] | None
    full_copy: Callable[[], Iterable[bytes]] | None


class RedisNodeMessaging:
    """The `NodeMessaging` of a node. Loop thread only.

    Arguments:
        address, keys: the Redis that all nodes use.
        membership: knows the nodes that are alive.
    """

    def __init__(self, address: RedisAddress, keys: Keys, membership: Membership) -> None:
        self._address = address
        self._keys = keys
        self._own = membership.base
        self._membership = membership
        membership.on_beat.append(self._on_beat)
        self._listeners: dict[str, _Subscription] = {}
        self._queue: deque[tuple[bytes, bytes]] = deque()
        self._queued_bytes = 0
        self._queued = asyncio.Event()
        self._is_linked = False
        self._is_listening = False
        self._number = 0
        # The number of the last message of each node whose state is complete here.
        self._known: dict[bytes, int] = {}
        # The nodes whose messages control services have received, perhaps not all of them.
        self._copied_nodes: set[bytes] = set()
        self._copies = FullCopies(
            lambda: not self.is_full,
            self._contents,
            lambda node: self._enqueue(self._channel(node), _COPY_BEGINS),
            lambda node, *page: self._enqueue(self._channel(node), _COPY_PAGE, *page),
        )
        self._missing: set[bytes] = set()

    def listen(
        self,
        subject: str,
        on_message: Callable[[bytes, bytes], None],
        on_node_gone: Callable[[bytes], None] | None = None,
        full_copy: Callable[[], Iterable[bytes]] | None = None,
    ) -> None:
        """As `NodeMessaging`."""
        self._listeners[subject] = _Subscription(on_message, on_node_gone, full_copy)

    def notify(self, subject: str, message: bytes) -> None:
        """As `NodeMessaging`."""
        self._number += 1
        self._enqueue(self._channel(), _NUMBERED, subject, message)

    def send(self, subject: str, message: bytes, to: bytes | None = None) -> bool:
        """As `NodeMessaging`."""
        channel = self._channel(to or b"all")
        # While this node does not listen, it can't receive an answer.
        return self._enqueue(channel, _UNNUMBERED, subject, message) and self._is_listening

    @property
    def own(self) -> bytes:
        """As `NodeMessaging`."""
        return self._own

    @property
    def others(self) -> frozenset[bytes]:
        """As `NodeMessaging`."""
        return self._membership.alive - {self._own}

    @property
    def is_full(self) -> bool:
        """As `NodeMessaging`."""
        return self._queued_bytes > HIGH_WATER_BYTES

    async def run(self) -> None:
        """Sends and receives until it is cancelled."""
        sending = while_connected(self._address, "sending to other nodes", self._send_all)
        await asyncio.gather(sending, self._receive_all())

    # -- sending --------------------------------------------------------------------------------

    def _enqueue(
        self, channel: bytes, kind: bytes, subject: str = "", message: bytes = b""
    ) -> bool:
        if not self._is_linked:
            return False
        if self._queued_bytes > QUEUE_BYTES_MAX:
            self._drop()
            return False
        head = _HEAD.pack(kind, self._own, self._number, len(subject))
        data = head + subject.encode() + message
        self._queue.append((channel, data))
        self._queued_bytes += len(data) + _MESSAGE_COST_BYTES
        self._queued.set()
        return True

    def _drop(self) -> None:
        """Drops what waits to be sent. Nodes notice the missing numbers and request full copies."""
        self._copies.clear()
        self._queue.clear()
        self._queued_bytes = 0
        self._number += 1

    def _channel(self, node: bytes = b"all") -> bytes:
        return self._keys.channel(self._address.database, node)

    async def _send_all(self, link: RedisConnection, backoff: Backoff) -> None:
        try:
            self._is_linked = True
            while True:
                await self._queued.wait()
                await link.calls([(b"PUBLISH", *pair) for pair in self._next_batch()])
                backoff.reset()
                self._copies.go_on()
        finally:
            self._is_linked = False
            self._drop()

    def _next_batch(self) -> list[tuple[bytes, bytes]]:
        batch: list[tuple[bytes, bytes]] = []
        size_bytes = 0
        while self._queue and len(batch) < BATCH_MESSAGES_MAX and size_bytes <= HIGH_WATER_BYTES:
            batch.append(self._queue.popleft())
            size_bytes += len(batch[-1][1]) + _MESSAGE_COST_BYTES
        self._queued_bytes -= size_bytes
        if not self._queue:
            self._queued.clear()
        return batch

    def _contents(self) -> list[tuple[str, Iterable[bytes]]]:
        """What a full copy contains now: the messages of each subject that has a state."""
        return [
            (subject, listener.full_copy())
            for subject, listener in self._listeners.items()
            if listener.full_copy is not None
        ]

    # -- receiving ------------------------------------------------------------------------------

    async def _receive_all(self) -> None:
        backoff = Backoff()
        while True:
            await backoff.wait()
            try:
                connection = await self._address.connection()
            except AnswerLost:
                continue
            try:
                async with asyncio.timeout(self._address.timeout_s):
                    await connection.connect()  # type: ignore[no-untyped-call]
                    await _send(connection, b"SUBSCRIBE", self._channel(), self._channel(self._own))
                while True:
                    await self._read(connection, backoff)
            except exceptions.ResponseError as error:
                if backoff.tries == 2:
                    log.warning(
                        "Redis refuses.", what="listening to other nodes", why=str(error)[:200]
                    )
            except (exceptions.RedisError, OSError, TimeoutError):
                continue
            except Exception:
                log.exception("Listening to other nodes failed; it starts again.")
            finally:
                self._is_listening = False
                with contextlib.suppress(exceptions.RedisError, OSError, RuntimeError):
                    await connection.disconnect(nowait=True)

    def _begin(self) -> None:
        """Requests full copies from all nodes: their messages of the time before are lost."""
        self._is_listening = True
        self._known.clear()
        self._request_unknown()

    async def _read(self, connection: Any, backoff: Backoff) -> None:
        """Reads and handles one message. A silent connection is pinged once; without an answer it
        counts as lost."""
        reading = asyncio.ensure_future(connection.read_response(disconnect_on_error=False))
        try:
            done, _ = await asyncio.wait((reading,), timeout=PING_S)
            if not done:
                await _send(connection, b"PING")
            async with asyncio.timeout(self._address.timeout_s):
                message = await reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        backoff.reset()
        if message[0] == b"message":
            self._take_safely(message[2])
        elif message[0] == b"subscribe" and message[1] == self._channel(self._own):
            self._begin()

    def _take_safely(self, data: bytes) -> None:
        try:
            self._take(data)
        except (ValueError, struct.error) as error:
            log.warning("A message between nodes is damaged.", why=str(error)[:200])

    def _take(self, data: bytes) -> None:
        kind, node, number, length = _HEAD.unpack_from(data)
        if node == self._own:
            return
        body = data[_HEAD.size :]
        subject, message = body[:length].decode(), body[length:]
        if kind == _NUMBERED:
            self._take_numbered(node, number, subject, message)
        elif kind == _LAST_NUMBER:
            self._compare(node, number)
        elif kind == _COPY_REQUEST:
            if self._is_linked:
                self._copies.add(node)
        elif kind == _COPY_BEGINS:
            self._forget(node)
            self._copied_nodes.add(node)
            self._known[node] = number
        elif kind == _PAGE_CONFIRMED:
            self._copies.confirm(node)
        elif kind == _COPY_PAGE:
            self._enqueue(self._channel(node), _PAGE_CONFIRMED)
            if node in self._known:
                self._hand_on(node, subject, message)
        elif kind == _UNNUMBERED:
            self._hand_on(node, subject, message)

    def _take_numbered(self, node: bytes, number: int, subject: str, message: bytes) -> None:
        known = self._known.get(node)
        if known is not None and number == known + 1:
            self._known[node] = number
            self._hand_on(node, subject, message)
        else:
            self._compare(node, number)

    def _compare(self, node: bytes, number: int) -> None:
        """Requests a full copy of a node if a message of it is missing. What it sent before is
        valid until the copy begins."""
        if self._known.get(node, number) != number:
            del self._known[node]
            self._request_copy(node)

    def _hand_on(self, node: bytes, subject: str, message: bytes) -> None:
        listener = self._listeners.get(subject)
        if listener is not None:
            listener.on_message(node, message)

    # -- the state of other nodes ---------------------------------------------------------------

    def _request_copy(self, node: bytes) -> None:
        self._enqueue(self._channel(node), _COPY_REQUEST)

    def _request_unknown(self) -> None:
        for node in self._membership.alive - self._known.keys() - {self._own}:
            self._request_copy(node)

    def _on_beat(self) -> None:
        """Sends the number of the last message, requests copies from unknown nodes, and forgets
        nodes that are gone. A node that is new may be missing in one answer of Redis, so a node is
        gone when two answers do not name it."""
        self._enqueue(self._channel(), _LAST_NUMBER)
        if self._is_listening:
            self._request_unknown()
        missing = (self._copied_nodes | self._copies.receivers) - self._membership.alive
        for node in missing & self._missing:
            self._copies.stop(node)
            self._known.pop(node, None)
            self._forget(node)
        self._missing = missing

    def _forget(self, node: bytes) -> None:
        """The messages of a node are no longer valid."""
        if node in self._copied_nodes:
            self._copied_nodes.remove(node)
            for listener in self._listeners.values():
                if listener.on_node_gone is not None:
                    listener.on_node_gone(node)


async def _send(connection: Any, *command: bytes) -> None:
    packed = b"".join(connection.pack_command(*command))
    await connection.send_packed_command(packed, check_health=False)
