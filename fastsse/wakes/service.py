"""The service of all subscriptions of a node, in the process that orders."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from fastsse.control.service import Answer, Publish
from fastsse.errors import BadRequest, Unavailable
from fastsse.wakes.answers import Refusal, read_acks
from fastsse.wakes.delivery import WakeCalls
from fastsse.wakes.index import StreamRowsHere
from fastsse.wakes.keys import WakeStore
from fastsse.wakes.shown import listed, shown
from fastsse.wakes.subscription import LINKS_MAX, Link, Subscription, Wake, read_config, read_paths
from fastsse.wakes.waking import Waker

__all__ = ["WakeService"]

_SUBSCRIPTIONS_MAX: Final = 1_000
_ID_BYTES_MAX: Final = 128


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
        self, rows: StreamRowsHere, store: WakeStore, publish: Publish, calls: WakeCalls
    ) -> None:
        self._store: Final = store
        self._calls: Final = calls
        self._waker: Final = Waker(rows, store, publish, calls)
        self._index: Final = self._waker.index

    async def end(self) -> None:
        """Ends calls and the timer."""
        await self._waker.end()

    # -- requests ---------------------------------------------------------------------------------

    def on_request(self, worker: int, message: bytes, answer: Answer) -> None:
        """As `Service`. The answer comes when what it says is stored."""
        asked = orjson.loads(message)
        try:
            status, body = self._answer(asked["op"], asked["id"], asked)
        except Refusal as refusal:
            status, body = refusal.status, {"error": refusal.members}
        except BadRequest as error:
            status, body = 400, {"error": {"code": "INVALID_REQUEST", "message": str(error)}}
        said = orjson.dumps({"status": status, "body": body})
        if asked["op"] == "get":
            answer(said)
        else:
            self._store.when_stored(
                lambda is_stored: answer(said if is_stored else Unavailable("backbone", 1))
            )

    def on_message(self, worker: int, message: bytes) -> None:
        """As `Service`; workers send no messages."""

    def on_worker_gone(self, worker: int) -> None:
        """As `Service`; nothing depends on workers."""

    def _answer(self, op: str, name: str, asked: dict[str, Any]) -> tuple[int, Any]:
        if op == "jwks":
            return 200, self._waker.keys.jwks()
        if op == "put":
            return self._put(name, asked)
        one = self._index.get(name)
        if one is None:
            raise Refusal(404, "SUBSCRIPTION_NOT_FOUND", "There is no such subscription.")
        handle: Callable[[Subscription, dict[str, Any]], tuple[int, Any]] = {
            "get": lambda one, asked: (200, shown(one, self._waker.keys.kid)),
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
                return 200, shown(known, self._waker.keys.kid)
            raise Refusal(409, "SUBSCRIPTION_EXISTS", "It exists with another configuration.")
        why = None if config["webhook"] is None else self._calls.objection(config["webhook"])
        if why is not None:
            raise Refusal(400, "WEBHOOK_URL_REJECTED", why)
        if len(self._index) >= _SUBSCRIPTIONS_MAX:
            raise Refusal(507, "TOO_MANY_SUBSCRIPTIONS", f"At most {_SUBSCRIPTIONS_MAX}.")
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        one = Subscription(name, config, asked["base"], now)
        for path in config["streams"]:
            one.links[path] = Link(self._waker.tail(path), is_explicit=True)
        self._link_existing(one)
        self._index.add(one)
        self._waker.keep(one)
        return 201, shown(one, self._waker.keys.kid)

    def _link_existing(self, one: Subscription) -> None:
        """Links the streams that the pattern matches at their ends. O(streams)."""
        for path, row in self._waker.matching(one):
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
            one.links.setdefault(path, Link(self._waker.tail(path))).is_explicit = True
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
        self._waker.keep(one)

    # -- answers to wakes -------------------------------------------------------------------------

    def _claim(self, one: Subscription, asked: dict[str, Any]) -> tuple[int, Any]:
        if one.webhook is not None:
            raise Refusal(409, "NOT_PULL_WAKE", "Webhooks are not claimed.")
        body = asked["body"]
        worker = body.get("worker") if isinstance(body, dict) else None
        if not isinstance(worker, str) or not 0 < len(worker) <= _ID_BYTES_MAX:
            raise BadRequest("worker", f"must be a name of 1 to {_ID_BYTES_MAX} characters")
        if one.wake is None:
            self._waker.wake_if_pending(one)
        wake = one.wake
        if wake is None:
            raise Refusal(409, "NOTHING_PENDING", "No stream has new content.")
        if wake.holder is not None:
            raise Refusal(
                *(409, "ALREADY_CLAIMED", "Another worker has claimed it."),
                current_holder=wake.holder,
                generation=one.generation,
            )
        wake.holder, wake.tails = worker, self._waker.pending(one)
        self._waker.lease(one, wake)
        self._waker.keep(one)
        return 200, {
            "wake_id": wake.id,
            "generation": one.generation,
            "token": self._waker.keys.token(one.id, one.generation, wake.id),
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
        if not self._waker.keys.accepts(asked["token"], one.id, generation, wake_id):
            raise Refusal(401, "TOKEN_INVALID", "The token is not that of the wake.")
        wake = one.wake
        is_current = wake is not None and (one.generation, wake.id) == (generation, wake_id)
        if wake is None or wake.until_ms is None or not is_current:
            raise Refusal(409, "FENCED", "The wake is over.")
        return wake, body

    def _acknowledge(self, one: Subscription, asked: dict[str, Any]) -> tuple[int, Any]:
        wake, body = self._fenced(one, asked)
        for path, place in read_acks(one, body.get("acks", []), self._waker.tail):
            link = one.links[path]
            link.acked = max(link.acked, place)
        if body.get("done") is not True:
            self._waker.lease(one, wake)
            self._waker.keep(one)
            return 200, {"ok": True, "next_wake": False}
        one.wake, one.tries = None, 0
        is_pending = bool(self._waker.pending(one))
        self._waker.keep(one)
        self._waker.check_soon(one)
        return 200, {"ok": True, "next_wake": is_pending}

    def _release(self, one: Subscription, asked: dict[str, Any]) -> tuple[int, Any]:
        self._fenced(one, asked)
        one.wake = None
        self._waker.keep(one)
        self._waker.check_soon(one)
        return 204, None
