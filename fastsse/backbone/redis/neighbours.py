"""Neighbours: what desks of one node tell the same desks of the others, by Redis's pub/sub.

Redis keeps none of it, so what is told is numbered, and with each beat every node says where it
stands. Whoever misses a number, begins to listen, or meets a node that it does not know asks that
one for everything, and gets it on a channel of its own: first the number at which everything is as
it is, then all of it, then what is told from there on. It comes over one connection, in the order
in which it was sent. So nobody is wrong for long, and nothing is told again without need.
"""

import asyncio
import contextlib
import struct
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from redis import exceptions

from fastsse.backbone.redis.keys import Keys
from fastsse.backbone.redis.link import Address, Backoff, Link
from fastsse.backbone.redis.linked import while_linked
from fastsse.backbone.redis.members import Members
from fastsse.desks.reach import NODE_BYTES
from fastsse.log import get_logger

__all__ = ["RedisNeighbours"]

log = get_logger("redis")
# What waits to be sent; above it all is dropped, and told anew to whoever asks.
QUEUE_BYTES: Final = 16 * 1024 * 1024
SENT_AT_ONCE: Final = 256
# A connection on which nothing comes is asked whether it is alive, and left if it is not.
PING_S: Final = 2.0

_HEAD: Final = struct.Struct(f"<c{NODE_BYTES}sQB")  # kind, from whom, number, length of the subject
_TOLD: Final = b"n"
_STANDS: Final = b"@"
_SAID: Final = b"d"
_ASKS: Final = b"?"
_WHOLE: Final = b"w"
_PART: Final = b"p"


class _Listener(NamedTuple):
    heard: Callable[[bytes, bytes], None]
    gone: Callable[[bytes], None] | None
    whole: Callable[[], Iterable[bytes]] | None


class RedisNeighbours:
    """The `Neighbours` of a node. Loop thread only.

    Arguments:
        address, keys: where they meet.
        members: knows who is there.
    """

    def __init__(self, address: Address, keys: Keys, members: Members) -> None:
        self._address = address
        self._keys = keys
        self._own = members.base
        self._members = members
        members.on_beat.append(self._look)
        self._listeners: dict[str, _Listener] = {}
        self._queue: deque[tuple[bytes, bytes]] = deque()
        self._queued_bytes = 0
        self._queued = asyncio.Event()
        self._is_linked = False
        self._is_heard = False
        self._number = 0
        # The number of what each told last; and of whom desks know something, even if not all.
        self._known: dict[bytes, int] = {}
        self._heard_of: set[bytes] = set()
        self._missing: set[bytes] = set()

    def listen(
        self,
        subject: str,
        heard: Callable[[bytes, bytes], None],
        gone: Callable[[bytes], None] | None = None,
        whole: Callable[[], Iterable[bytes]] | None = None,
    ) -> None:
        """As Neighbours."""
        self._listeners[subject] = _Listener(heard, gone, whole)

    def tell(self, subject: str, message: bytes) -> None:
        """As Neighbours."""
        self._number += 1
        self._send(self._channel(), _TOLD, subject, message)

    def say(self, subject: str, message: bytes, to: bytes | None = None) -> bool:
        """As Neighbours."""
        channel = self._channel(to or b"all")
        # Whoever does not hear gets no answer either.
        return self._send(channel, _SAID, subject, message) and self._is_heard

    async def run(self) -> None:
        """Speaks and hears until it is cancelled."""
        speaking = while_linked(self._address, "speaking to other nodes", self._speak)
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
        self._queued_bytes += len(data)
        self._queued.set()
        return True

    def _drop(self) -> None:
        """What was to be sent will not be, as the number will show."""
        self._queue.clear()
        self._queued_bytes = 0
        self._number += 1

    def _channel(self, node: bytes = b"all") -> bytes:
        return self._keys.channel(self._address.database, node)

    async def _speak(self, link: Link, backoff: Backoff) -> None:
        try:
            self._is_linked = True
            while True:
                await self._queued.wait()
                await link.calls([(b"PUBLISH", *pair) for pair in self._taken()])
                backoff.reset()
        finally:
            self._is_linked = False
            self._drop()

    def _taken(self) -> list[tuple[bytes, bytes]]:
        count = min(len(self._queue), SENT_AT_ONCE)
        taken = [self._queue.popleft() for _ in range(count)]
        self._queued_bytes -= sum(len(data) for _, data in taken)
        if not self._queue:
            self._queued.clear()
        return taken

    def _tell_whole(self, node: bytes) -> None:
        """Tells one everything, as of the number that has been told last."""
        parts = [
            (subject, message)
            for subject, listener in self._listeners.items()
            if listener.whole is not None
            for message in listener.whole()
        ]
        channel = self._channel(node)
        self._send(channel, _WHOLE)
        for subject, message in parts:
            self._send(channel, _PART, subject, message)

    # -- hearing --------------------------------------------------------------------------------

    async def _hear_on(self) -> None:
        backoff = Backoff()
        while True:
            await backoff.wait()
            connection = self._address.connection()
            try:
                async with asyncio.timeout(self._address.timeout_s):
                    await connection.connect()  # type: ignore[no-untyped-call]
                    await _send(connection, b"SUBSCRIBE", self._channel(), self._channel(self._own))
                while True:
                    await self._read(connection, backoff)
            except exceptions.ResponseError as error:
                if backoff.tries == 2:
                    log.warning("Redis refuses.", what="hearing other nodes", why=str(error)[:200])
            except (exceptions.RedisError, OSError, TimeoutError):
                continue
            except Exception:
                log.exception("Hearing other nodes failed, and begins anew.")
            finally:
                self._is_heard = False
                with contextlib.suppress(exceptions.RedisError, OSError, RuntimeError):
                    await connection.disconnect(nowait=True)

    def _begin(self) -> None:
        """What was told while nobody listened is unknown, so all are asked for everything."""
        self._is_heard = True
        self._known.clear()
        self._ask_unknown()

    async def _read(self, connection: Any, backoff: Backoff) -> None:
        """One message. A silent connection is asked once, and then not trusted any more."""
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
        if kind == _TOLD:
            self._take_told(node, number, subject, message)
        elif kind == _STANDS:
            self._compare(node, number)
        elif kind == _ASKS:
            self._tell_whole(node)
        elif kind == _WHOLE:
            self._forget(node)
            self._heard_of.add(node)
            self._known[node] = number
        elif kind == _SAID or (kind == _PART and node in self._known):
            self._hand_on(node, subject, message)

    def _take_told(self, node: bytes, number: int, subject: str, message: bytes) -> None:
        known = self._known.get(node)
        if known is not None and number == known + 1:
            self._known[node] = number
            self._hand_on(node, subject, message)
        else:
            self._compare(node, number)

    def _compare(self, node: bytes, number: int) -> None:
        """Whether all that a node told was heard. Until it tells it anew, what was told holds."""
        if self._known.get(node, number) != number:
            del self._known[node]
            self._ask(node)

    def _hand_on(self, node: bytes, subject: str, message: bytes) -> None:
        listener = self._listeners.get(subject)
        if listener is not None:
            listener.heard(node, message)

    # -- who is there ---------------------------------------------------------------------------

    def _ask(self, node: bytes) -> None:
        self._send(self._channel(node), _ASKS)

    def _ask_unknown(self) -> None:
        for node in self._members.alive - self._known.keys() - {self._own}:
            self._ask(node)

    def _look(self) -> None:
        """After each beat: says where it stands, asks those that are not known, forgets those that
        are not there. One that only just came may be missing in one answer, but not in two."""
        self._send(self._channel(), _STANDS)
        if self._is_heard:
            self._ask_unknown()
        missing = self._heard_of - self._members.alive
        for node in missing & self._missing:
            self._known.pop(node, None)
            self._forget(node)
        self._missing = missing

    def _forget(self, node: bytes) -> None:
        """What it told holds no longer."""
        if node in self._heard_of:
            self._heard_of.remove(node)
            for listener in self._listeners.values():
                if listener.gone is not None:
                    listener.gone(node)


async def _send(connection: Any, *command: bytes) -> None:
    packed = b"".join(connection.pack_command(*command))
    await connection.send_packed_command(packed, check_health=False)
