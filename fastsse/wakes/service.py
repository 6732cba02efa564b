"""The service of all subscriptions of a node, in the process that orders."""

import asyncio
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final

import orjson

from fastsse.control.service import Answer, ControlStore, Publish
from fastsse.errors import BadRequest
from fastsse.events import DATA_JSON, Event
from fastsse.log import get_logger
from fastsse.streamstate import StreamRow
from fastsse.wakes.answers import Refusal, read_acks
from fastsse.wakes.delivery import WakeCalls
from fastsse.wakes.index import StreamIndex, StreamRowsHere
from fastsse.wakes.keys import WakeKeys
from fastsse.wakes.shown import callback_body, listed, shown, wake_message
from fastsse.wakes.subscription import LINKS_MAX, Link, Subscription, Wake, read_config, read_paths

__all__ = ["WakeService"]

log = get_logger("streams")
_SUBSCRIPTIONS_MAX: Final = 1_000
_ID_BYTES_MAX: Final = 128
# Streams in one wake; more are in the next.
_WAKE_STREAMS_MAX: Final = 1_000
_TICK_S: Final = 0.1
_WAIT_S_MAX: Final = 60.0
_JITTER: Final = 0.2


class WakeService:
    """Handles the requests of workers: JSON with `op` and its arguments; the answer has `status`
    and `body`.

    Arguments:
        rows: the streams.
        store: keeps subscriptions and the key.
        publish: writes to streams of wakes.
        calls: calls webhooks.
    """

    def __init__(
        self, rows: StreamRowsHere, store: ControlStore, publish: Publish, calls: WakeCalls
    ) -> None:
        self._rows: Final = rows
        self._store: Final = store
        self._publish: Final = publish
        self._calls: Final = calls
        self._index: Final = StreamIndex()
        self._loop: Final = asyncio.get_running_loop()
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._dirty: Final[dict[str, None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        for key, text in store.items("s/"):
            try:
                self._index.add(Subscription.decode(key[2:], text))
            except ValueError:
                log.error("A subscription to streams can't be read.", subscription=key[2:])
        rows.on_changed = self._on_changed
        for one in self._index.all():
            self._check_soon(one)

    @cached_property
    def _keys(self) -> WakeKeys:
        """The keys, made when they are first needed."""
        return WakeKeys(self._store)

    async def end(self) -> None:
        """Ends calls and the timer."""
        self._is_closed, self._rows.on_changed = True, None
        if self._timer is not None:
            self._timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- requests ---------------------------------------------------------------------------------

    def on_request(self, worker: int, message: bytes, answer: Answer) -> None:
        """As `Service`."""
        asked = orjson.loads(message)
        try:
            status, body = self._answer(asked["op"], asked["id"], asked)
        except Refusal as refusal:
            status, body = refusal.status, {"error": refusal.members}
        except BadRequest as error:
            status, body = 400, {"error": {"code": "INVALID_REQUEST", "message": str(error)}}
        answer(orjson.dumps({"status": status, "body": body}))

    def on_message(self, worker: int, message: bytes) -> None:
        """As `Service`; workers send no messages."""

    def on_worker_gone(self, worker: int) -> None:
        """As `Service`; nothing depends on workers."""

    def _answer(self, op: str, name: str, asked: dict[str, Any]) -> tuple[int, Any]:
        if op == "jwks":
            return 200, self._keys.jwks()
        if op == "put":
            return self._put(name, asked)
        one = self._index.get(name)
        if one is None:
            raise Refusal(404, "SUBSCRIPTION_NOT_FOUND", "There is no such subscription.")
        handle: Callable[[Subscription, dict[str, Any]], tuple[int, Any]] = {
            "get": lambda one, asked: (200, shown(one, self._keys.kid)),
            "delete": self._delete,
            "link": self._link,
            "unlink": self._unlink,
            "claim": self._claim,
            "callback": self._acknowledge,
            "ack": self._acknowledge,
            "release": self._release,
        }[op]
        return handle(one, asked)

    def _put(self, name: str, asked: dict[str, Any]) -> tuple[int, Any]:
        if not 0 < len(name.encode()) <= _ID_BYTES_MAX:
            raise BadRequest("id", f"must have 1 to {_ID_BYTES_MAX} bytes")
        config = read_config(asked["body"])
        known = self._index.get(name)
        if known is not None:
            if known.config == config:
                return 200, shown(known, self._keys.kid)
            raise Refusal(409, "SUBSCRIPTION_EXISTS", "It exists with another configuration.")
        why = None if config["webhook"] is None else self._calls.objection(config["webhook"])
        if why is not None:
            raise Refusal(400, "WEBHOOK_URL_REJECTED", why)
        if len(self._index) >= _SUBSCRIPTIONS_MAX:
            raise Refusal(507, "TOO_MANY_SUBSCRIPTIONS", f"At most {_SUBSCRIPTIONS_MAX}.")
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        one = Subscription(name, config, asked["base"], now)
        for path in config["streams"]:
            one.links[path] = Link(self._tail(path), is_explicit=True)
        self._link_existing(one)
        self._index.add(one)
        self._keep(one)
        return 201, shown(one, self._keys.kid)

    def _link_existing(self, one: Subscription) -> None:
        """Links the streams that the pattern matches at their ends. O(streams)."""
        if one.glob is None:
            return
        for path, row in self._rows.rows.items():
            if path != one.config["wake_stream"] and one.glob.fullmatch(path) and not row.is_hidden:
                if path not in one.links and len(one.links) >= LINKS_MAX:
                    raise Refusal(507, "TOO_MANY_STREAMS", f"It matches more than {LINKS_MAX}.")
                one.links.setdefault(path, Link(row.tail)).is_glob = True

    def _delete(self, one: Subscription, asked: dict[str, Any]) -> tuple[int, Any]:
        self._index.remove(one)
        self._store.put(f"s/{one.id}", None)
        return 204, None

    def _link(self, one: Subscription, asked: dict[str, Any]) -> tuple[int, Any]:
        body = asked["body"]
        paths = read_paths(body.get("streams") if isinstance(body, dict) else None)
        if len({*one.links, *paths}) > LINKS_MAX:
            raise Refusal(507, "TOO_MANY_STREAMS", f"At most {LINKS_MAX} streams.")
        for path in paths:
            one.links.setdefault(path, Link(self._tail(path))).is_explicit = True
        self._changed_links(one)
        return 204, None

    def _unlink(self, one: Subscription, asked: dict[str, Any]) -> tuple[int, Any]:
        link = one.links.get(asked["path"])
        if link is not None:
            link.is_explicit = False
            if not link.is_glob:
                del one.links[asked["path"]]
            self._changed_links(one)
        return 204, None

    def _changed_links(self, one: Subscription) -> None:
        self._index.remove(one)
        self._index.add(one)
        self._keep(one)

    # -- answers to wakes -------------------------------------------------------------------------

    def _claim(self, one: Subscription, asked: dict[str, Any]) -> tuple[int, Any]:
        if one.webhook is not None:
            raise Refusal(409, "NOT_PULL_WAKE", "Webhooks are not claimed.")
        body = asked["body"]
        worker = body.get("worker") if isinstance(body, dict) else None
        if not isinstance(worker, str) or not 0 < len(worker) <= _ID_BYTES_MAX:
            raise BadRequest("worker", f"must be a name of 1 to {_ID_BYTES_MAX} characters")
        if one.wake is None:
            self._wake_if_pending(one)
        wake = one.wake
        if wake is None:
            raise Refusal(409, "NOTHING_PENDING", "No stream has new content.")
        if wake.holder is not None:
            raise Refusal(
                *(409, "ALREADY_CLAIMED", "Another worker has claimed it."),
                current_holder=wake.holder,
                generation=one.generation,
            )
        wake.holder, wake.tails = worker, self._pending(one)
        self._lease(one, wake)
        return 200, {
            "wake_id": wake.id,
            "generation": one.generation,
            "token": self._keys.token(one.id, one.generation, wake.id),
            "streams": listed(one, wake.tails),
            "lease_ttl_ms": one.config["lease_ttl_ms"],
        }

    def _fenced(self, one: Subscription, asked: dict[str, Any]) -> tuple[Wake, dict[str, Any]]:
        """The wake that a request answers, and its body."""
        body = asked["body"]
        if not isinstance(body, dict):
            raise BadRequest("body", "must be a JSON object")
        wake_id, generation = body.get("wake_id"), body.get("generation")
        if not isinstance(wake_id, str) or type(generation) is not int:
            raise BadRequest("wake_id", "and generation must be given")
        if not self._keys.accepts(asked["token"], one.id, generation, wake_id):
            raise Refusal(401, "TOKEN_INVALID", "The token is not that of the wake.")
        wake = one.wake
        if (
            wake is None
            or wake.until_s is None
            or (one.generation, wake.id)
            != (
                generation,
                wake_id,
            )
        ):
            raise Refusal(409, "FENCED", "The wake is over.")
        return wake, body

    def _acknowledge(self, one: Subscription, asked: dict[str, Any]) -> tuple[int, Any]:
        wake, body = self._fenced(one, asked)
        for path, place in read_acks(one, body.get("acks", []), self._tail):
            link = one.links[path]
            link.acked = max(link.acked, place)
        if body.get("done") is not True:
            self._lease(one, wake)
            self._keep(one)
            return 200, {"ok": True, "next_wake": False}
        one.wake, one.tries = None, 0
        is_pending = bool(self._pending(one))
        self._keep(one)
        self._check_soon(one)
        return 200, {"ok": True, "next_wake": is_pending}

    def _release(self, one: Subscription, asked: dict[str, Any]) -> tuple[int, Any]:
        self._fenced(one, asked)
        one.wake = None
        self._check_soon(one)
        return 204, None

    # -- wakes ------------------------------------------------------------------------------------

    def _on_changed(self, topic: str, row: StreamRow | None) -> None:
        """A stream has changed. O(its subscriptions)."""
        for one in self._index.of(topic):
            if row is None or row.is_hidden:
                self._unlink_deleted(one, topic)
                continue
            link = one.links.get(topic)
            if link is None and len(one.links) < LINKS_MAX:
                link = one.links[topic] = Link(row.generation, is_glob=True)
            if link is not None and row.tail > link.acked:
                self._check_soon(one)

    def _unlink_deleted(self, one: Subscription, topic: str) -> None:
        link = one.links.get(topic)
        if link is not None and not link.is_explicit:
            del one.links[topic]
        self._check_soon(one)

    def _check_soon(self, one: Subscription) -> None:
        """Calls `_wake_if_pending` in a later turn, because this may run within a commit."""
        if not self._is_closed and one.wake is None:
            if not self._dirty:
                self._loop.call_soon(self._check_changed)
            self._dirty[one.id] = None

    def _check_changed(self) -> None:
        names = list(self._dirty)
        self._dirty.clear()
        for name in names:
            one = self._index.get(name)
            if one is not None and not self._is_closed:
                self._wake_if_pending(one)

    def _wake_if_pending(self, one: Subscription) -> None:
        """Makes a wake if the subscription is idle and a stream has new content. O(its streams)."""
        if one.wake is not None:
            return
        if one.next_ms > time.time() * 1000:
            self._tick_soon()
            return
        tails = self._pending(one)
        if not tails:
            return
        one.generation += 1
        one.wake = Wake("w_" + secrets.token_urlsafe(12), tails)
        self._keep(one)
        if one.webhook is None:
            self._write_wake(one, next(iter(tails)))
        else:
            self._lease(one, one.wake)
            self._spawn(self._call(one, one.wake, one.webhook))

    def _write_wake(self, one: Subscription, path: str) -> None:
        data = orjson.dumps(wake_message(one, path))
        event = Event(one.config["wake_stream"], data, data_kind=DATA_JSON)

        def written(is_written: bool) -> None:
            if not is_written and self._index.get(one.id) is one:
                one.wake = None
                self._postpone(one)

        self._publish((event,), written)

    async def _call(self, one: Subscription, wake: Wake, url: str) -> None:
        token = self._keys.token(one.id, one.generation, wake.id)
        body = orjson.dumps(callback_body(one, wake, token))
        is_done = await self._calls.call(url, body, self._keys)
        if one.wake is not wake or self._index.get(one.id) is not one:
            return
        if is_done is None:
            one.wake = None
            self._postpone(one)
        elif is_done:
            for path, place in wake.tails.items():
                if path in one.links:
                    one.links[path].acked = max(one.links[path].acked, place)
            one.wake, one.tries, one.next_ms = None, 0, 0
            self._keep(one)
            self._check_soon(one)
        else:
            one.tries = 0

    def _postpone(self, one: Subscription) -> None:
        """The next try comes later: 1 s and more, up to a minute."""
        one.tries += 1
        wait_s = min(_WAIT_S_MAX, 2.0 ** min(one.tries - 1, 10))
        wait_s *= 1 + _JITTER * (secrets.randbelow(2001) / 1000 - 1)
        one.next_ms = int((time.time() + wait_s) * 1000)
        self._keep(one)
        self._tick_soon()

    def _lease(self, one: Subscription, wake: Wake) -> None:
        wake.until_s = self._loop.time() + one.lease_s
        self._tick_soon()

    def _tick_soon(self) -> None:
        if self._timer is None and not self._is_closed:
            self._timer = self._loop.call_later(_TICK_S, self._tick)

    def _tick(self) -> None:
        """Ends leases, and tries again what is due. One timer for all, while there are any."""
        self._timer = None
        now_s, now_ms = self._loop.time(), time.time() * 1000
        for one in self._index.all():
            wake = one.wake
            if wake is not None and wake.until_s is not None:
                if wake.until_s > now_s:
                    self._tick_soon()
                else:
                    one.wake = None
                    self._check_soon(one)
            elif wake is None and one.next_ms:
                if one.next_ms > now_ms:
                    self._tick_soon()
                else:
                    one.next_ms = 0
                    self._check_soon(one)

    # -- state ------------------------------------------------------------------------------------

    def _tail(self, path: str) -> int:
        row = self._rows.rows.get(path)
        return 0 if row is None else row.tail

    def _pending(self, one: Subscription) -> dict[str, int]:
        """Streams with new content, and their ends. O(its streams)."""
        found: dict[str, int] = {}
        for path, link in one.links.items():
            tail = self._tail(path)
            if tail > link.acked:
                found[path] = tail
                if len(found) >= _WAKE_STREAMS_MAX:
                    break
        return found

    def _keep(self, one: Subscription) -> None:
        self._store.put(f"s/{one.id}", one.encode())

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
