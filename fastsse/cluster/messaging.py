"""Node messaging: control services of one node send messages to those of the others, by
Redis's pub/sub.

Redis stores no message, so messages are numbered, and with each beat every node sends its last
number. A node that misses a number, starts to listen, or meets an unknown node requests a full copy
from that node. It receives the copy on a channel of its own: first the number of the last message
that the copy contains, then pages, and between them newer messages. All of it uses one connection
and arrives in the order of sending. So no node is wrong for long, and nothing is sent again without
need.

Redis disconnects a subscriber that reads too slowly. So a node confirms each page, and the sender
waits while a few pages are not confirmed. One node at a time gets a full copy; the others wait.
"""

import asyncio
import contextlib
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

from redis import exceptions

from fastsse.backoff import Backoff
from fastsse.cluster.membership import Membership
from fastsse.control.stream_lookup import NODE_BYTES
from fastsse.log import get_logger
from fastsse.paging import Pager
from fastsse.redis.connection import RedisAddress, RedisConnection, while_connected
from fastsse.redis.errors import AnswerLost
from fastsse.redis.keys import Keys

__all__ = ["RedisNodeMessaging"]

log = get_logger("redis")
# Bytes that may wait to be sent. Above it all are dropped, and nodes request full copies.
QUEUE_BYTES: Final = 16 * 1024 * 1024
# Bytes that may wait when a page is added, and bytes sent at once.
HIGH_WATER_BYTES: Final = 1024 * 1024
SENT_AT_ONCE: Final = 256
# Counted overhead of a message.
_MESSAGE_COST_BYTES: Final = 256
# Pages sent to a node that it has not confirmed. A node of an earlier version confirms none, so a
# page counts as confirmed after this time.
PAGES_MAX: Final = 8
CONFIRM_S: Final = 0.25
# A silent connection is checked with a ping, and replaced if it does not answer.
PING_S: Final = 2.0

_HEAD: Final = struct.Struct(f"<c{NODE_BYTES}sQB")  # kind, from whom, number, length of the subject
_NOTICE: Final = b"n"
_STANDS: Final = b"@"
_SAID: Final = b"d"
_ASKS: Final = b"?"
_WHOLE: Final = b"w"
_PART: Final = b"p"
_CONFIRMED: Final = b"c"


class _Subscription(NamedTuple):
    on_message: Callable[[bytes, bytes], None]
    gone: Callable[[bytes], None] | None
    whole: Callable[[], Iterable[bytes]] | None


class _Page(NamedTuple):
    """A message of a full copy to one node."""

    kind: bytes
    subject: str = ""
    message: bytes = b""


class RedisNodeMessaging:
    """The `NodeMessaging` of a node. Loop thread only.

    Arguments:
        address, keys: where they meet.
        membership: knows the nodes that are alive.
    """

    def __init__(self, address: RedisAddress, keys: Keys, membership: Membership) -> None:
        self._address = address
        self._keys = keys
        self._own = membership.base
        self._membership = membership
        membership.on_beat.append(self._look)
        self._listeners: dict[str, _Subscription] = {}
        self._queue: deque[tuple[bytes, bytes]] = deque()
        self._queued_bytes = 0
        self._queued = asyncio.Event()
        self._is_linked = False
        self._is_listening = False
        self._number = 0
        # The number of each node's last message, and the nodes of which control services know
        # something, perhaps not all.
        self._known: dict[bytes, int] = {}
        self._copied_nodes: set[bytes] = set()
        # Nodes that requested a full copy, in order; the node that receives one now, and how many
        # of its pages are not confirmed.
        self._askers: dict[bytes, None] = {}
        self._asker = b""
        self._unconfirmed = 0
        self._confirming: asyncio.TimerHandle | None = None
        self._pager = Pager(self._has_room)
        self._missing: set[bytes] = set()

    def listen(
        self,
        subject: str,
        on_message: Callable[[bytes, bytes], None],
        gone: Callable[[bytes], None] | None = None,
        whole: Callable[[], Iterable[bytes]] | None = None,
    ) -> None:
        """As Neighbours."""
        self._listeners[subject] = _Subscription(on_message, gone, whole)

    def notify(self, subject: str, message: bytes) -> None:
        """As Neighbours."""
        self._number += 1
        self._send(self._channel(), _NOTICE, subject, message)

    def say(self, subject: str, message: bytes, to: bytes | None = None) -> bool:
        """As Neighbours."""
        channel = self._channel(to or b"all")
        # A node that does not listen gets no answer either.
        return self._send(channel, _SAID, subject, message) and self._is_listening

    @property
    def own(self) -> bytes:
        """As NodeMessaging."""
        return self._own

    @property
    def others(self) -> frozenset[bytes]:
        """As NodeMessaging."""
        return self._membership.alive - {self._own}

    @property
    def is_full(self) -> bool:
        """As Neighbours."""
        return self._queued_bytes > HIGH_WATER_BYTES

    async def run(self) -> None:
        """Sends and receives until it is cancelled."""
        speaking = while_connected(self._address, "speaking to other nodes", self._speak)
        await asyncio.gather(speaking, self._hear_on())

    # -- speaking -------------------------------------------------------------------------------

    def _send(self, channel: bytes, kind: bytes, subject: str = "", message: bytes = b"") -> bool:
        if not self._is_linked:
            return False
        if self._queued_bytes > QUEUE_BYTES:
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
        self._pager.clear()
        self._askers.clear()
        self._asker = b""
        self._unconfirmed = 0
        self._queue.clear()
        self._queued_bytes = 0
        self._number += 1

    def _channel(self, node: bytes = b"all") -> bytes:
        return self._keys.channel(self._address.database, node)

    async def _speak(self, link: RedisConnection, backoff: Backoff) -> None:
        try:
            self._is_linked = True
            while True:
                await self._queued.wait()
                await link.calls([(b"PUBLISH", *pair) for pair in self._taken()])
                backoff.reset()
                self._pager.go_on()
        finally:
            self._is_linked = False
            self._drop()

    def _taken(self) -> list[tuple[bytes, bytes]]:
        taken: list[tuple[bytes, bytes]] = []
        size_bytes = 0
        while self._queue and len(taken) < SENT_AT_ONCE and size_bytes <= HIGH_WATER_BYTES:
            taken.append(self._queue.popleft())
            size_bytes += len(taken[-1][1]) + _MESSAGE_COST_BYTES
        self._queued_bytes -= size_bytes
        if not self._queue:
            self._queued.clear()
        return taken

    # -- everything -----------------------------------------------------------------------------

    def _send_whole(self, node: bytes) -> None:
        """Sends a node a full copy as soon as it is its turn."""
        if self._is_linked:
            self._askers[node] = None
            if not len(self._pager):
                self._pager.add(self._pages(), self._send_page)

    def _pages(self) -> Iterator[_Page]:
        """Sends full copies, to one requesting node after the other."""
        while self._askers:
            self._asker = next(iter(self._askers))
            del self._askers[self._asker]
            self._unconfirmed = 0
            yield from self._pages_for(self._asker)

    def _pages_for(self, node: bytes) -> Iterator[_Page]:
        """Sends the begin mark and all pages of a full copy; stops when the node is gone."""
        # The copy is of this moment; later messages are added to it.
        wholes = [
            (subject, listener.whole())
            for subject, listener in self._listeners.items()
            if listener.whole is not None
        ]
        yield _Page(_WHOLE)
        for subject, messages in wholes:
            for message in messages:
                if self._asker != node:
                    return
                yield _Page(_PART, subject, message)

    def _stop_sending(self, node: bytes) -> None:
        self._askers.pop(node, None)
        if node == self._asker:
            self._asker = b""
            self._unconfirmed = 0
            self._pager.go_on()

    def _send_page(self, page: _Page) -> None:
        if page.kind == _PART:
            self._unconfirmed += 1
            if self._unconfirmed >= PAGES_MAX and self._confirming is None:
                loop = asyncio.get_running_loop()
                self._confirming = loop.call_later(CONFIRM_S, self._confirm_late)
        self._send(self._channel(self._asker), *page)

    def _has_room(self) -> bool:
        return self._unconfirmed < PAGES_MAX and not self.is_full

    def _confirm(self, node: bytes) -> None:
        """The node has confirmed a page."""
        if node == self._asker and self._unconfirmed:
            self._unconfirmed -= 1
            if self._confirming is not None:
                self._confirming.cancel()
                self._confirming = None
            self._pager.go_on()

    def _confirm_late(self) -> None:
        self._confirming = None
        self._confirm(self._asker)

    # -- hearing --------------------------------------------------------------------------------

    async def _hear_on(self) -> None:
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
        """Messages sent while this node did not listen are unknown, so it requests full copies from
        all."""
        self._is_listening = True
        self._known.clear()
        self._ask_unknown()

    async def _read(self, connection: Any, backoff: Backoff) -> None:
        """Returns one message. A silent connection is pinged once; without an answer it counts as
        lost."""
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
            log.warning("A message among nodes is damaged.", why=str(error)[:200])

    def _take(self, data: bytes) -> None:
        kind, node, number, length = _HEAD.unpack_from(data)
        if node == self._own:
            return
        body = data[_HEAD.size :]
        subject, message = body[:length].decode(), body[length:]
        if kind == _NOTICE:
            self._take_notice(node, number, subject, message)
        elif kind == _STANDS:
            self._compare(node, number)
        elif kind == _ASKS:
            self._send_whole(node)
        elif kind == _WHOLE:
            self._forget(node)
            self._copied_nodes.add(node)
            self._known[node] = number
        elif kind == _CONFIRMED:
            self._confirm(node)
        elif kind == _PART:
            self._send(self._channel(node), _CONFIRMED)
            if node in self._known:
                self._hand_on(node, subject, message)
        elif kind == _SAID:
            self._hand_on(node, subject, message)

    def _take_notice(self, node: bytes, number: int, subject: str, message: bytes) -> None:
        known = self._known.get(node)
        if known is not None and number == known + 1:
            self._known[node] = number
            self._hand_on(node, subject, message)
        else:
            self._compare(node, number)

    def _compare(self, node: bytes, number: int) -> None:
        """Whether all messages of a node arrived. Its old messages are valid until it sends a full
        copy."""
        if self._known.get(node, number) != number:
            del self._known[node]
            self._ask(node)

    def _hand_on(self, node: bytes, subject: str, message: bytes) -> None:
        listener = self._listeners.get(subject)
        if listener is not None:
            listener.on_message(node, message)

    # -- full copies ----------------------------------------------------------------------------

    def _ask(self, node: bytes) -> None:
        self._send(self._channel(node), _ASKS)

    def _ask_unknown(self) -> None:
        for node in self._membership.alive - self._known.keys() - {self._own}:
            self._ask(node)

    def _look(self) -> None:
        """After each beat: sends its last number, requests copies from unknown nodes, and forgets
        nodes that are gone. A new node may be missing in one answer, but not in two."""
        self._send(self._channel(), _STANDS)
        if self._is_listening:
            self._ask_unknown()
        missing = {*self._copied_nodes, *self._askers, self._asker} - self._membership.alive
        for node in missing & self._missing:
            self._stop_sending(node)
            self._known.pop(node, None)
            self._forget(node)
        self._missing = missing

    def _forget(self, node: bytes) -> None:
        """The messages of a node are no longer valid."""
        if node in self._copied_nodes:
            self._copied_nodes.remove(node)
            for listener in self._listeners.values():
                if listener.gone is not None:
                    listener.gone(node)


async def _send(connection: Any, *command: bytes) -> None:
    packed = b"".join(connection.pack_command(*command))
    await connection.send_packed_command(packed, check_health=False)
