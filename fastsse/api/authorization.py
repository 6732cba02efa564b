"""The authorization callback: another service decides who may subscribe and publish to topics.

It is asked in addition to tokens, by a signed request, and never for the same client, operation and
topic twice within the time of its answer. Without an answer in time nothing is allowed.
"""

import asyncio
import ipaddress
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import orjson

from fastsse.api.access import Later, Then
from fastsse.auth.rights import Rights
from fastsse.config import Config
from fastsse.config.hooks import Operation
from fastsse.errors import FastsseError, Forbidden, Unavailable
from fastsse.http.problems import Problem
from fastsse.http.request import Request
from fastsse.http.router import Exchange
from fastsse.log import get_logger
from fastsse.outbound import AddressGuard, OutboundClient, OutboundError, OutboundOptions, Signer
from fastsse.redis.health import Outage

__all__ = ["Authorization", "Undecided"]

log = get_logger("authorize")
COUNTS: Final = ("asked", "kept", "allowed", "refused", "failed", "full")
# Answers that are kept, about 200 bytes each.
KEPT_MAX: Final = 50_000
# Questions under way. Above it clients are refused at once.
WAITING_MAX: Final = 1_000
# Topics of one request.
TOPICS_MAX: Final = 1_000
_CONNECTIONS: Final = 20
_REASON_CHARS_MAX: Final = 200
_REFUSING: Final = frozenset({401, 403})
_REFUSED: Final = "The authorization callback does not allow this."

Decided = Callable[[FastsseError | None], None]


class Undecided(Unavailable):
    """The callback gave no answer. Becomes a 503."""

    def __init__(self) -> None:
        super().__init__("authorize", retry_after_s=1)


class _Said(NamedTuple):
    """What the callback said, and for how long it holds."""

    is_allowed: bool
    ttl_s: float
    reason: str


class Authorization:
    """Asks the callback of the options. Loop thread only.

    Arguments:
        config: the options; without `authorize_url` everything is allowed.
    """

    def __init__(self, config: Config) -> None:
        url = config.authorize_url
        self._url = url or ""
        self._operations = frozenset(config.authorize_operations if url else ())
        self._headers = [(name, name.encode()) for name in config.authorize_headers]
        self._ttl_s = config.authorize_cache
        self._kept: OrderedDict[bytes, tuple[float, str | None]] = OrderedDict()
        self._waiting: dict[bytes, list[Decided]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._counts: Counter[str] = Counter()
        self._outage = Outage(
            "The authorization callback does not answer.",
            "The authorization callback answers again.",
        )
        self._client: OutboundClient | None = None
        if url:
            networks = [ipaddress.ip_network(text) for text in config.outbound_networks]
            signer = Signer([one.get_secret_value() for one in config.authorize_secrets])
            options = OutboundOptions(config.authorize_timeout, connections=_CONNECTIONS)
            self._client = OutboundClient(AddressGuard(networks), signer, options)

    def covers(self, operation: Operation) -> bool:
        """Whether it is asked about an operation."""
        return operation in self._operations

    def counters(self) -> dict[str, int]:
        """Questions by result; empty without a callback."""
        if not self._operations:
            return {}
        return {f"authorize_{what}": self._counts[what] for what in COUNTS}

    def subscriber(
        self,
        topics: Sequence[str],
        request: Request,
        exchange: Exchange,
        then: Then,
        later: Later | None = None,
    ) -> Then:
        """`then`, called only when the client may subscribe to the topics; else the exchange is
        answered, by `later` if the callback gave no answer."""
        if not self.covers("subscribe"):
            return then

        def checked(rights: Rights | None) -> None:
            def decided(error: FastsseError | None) -> None:
                try:
                    if error is None:
                        then(rights)
                    elif isinstance(error, Undecided) and later is not None:
                        later(error)
                    else:
                        exchange.fail(_as_problem(error))
                except FastsseError as failure:
                    exchange.fail(failure)

            self.ask("subscribe", topics, rights, request, decided, may_wait=exchange.may_wait)

        return checked

    def publisher(
        self,
        topics: Iterable[str],
        rights: Rights | None,
        request: Request,
        then: Callable[[], None],
        refused: Callable[[FastsseError], None],
    ) -> None:
        """Calls `then` when the client may publish to the topics, else `refused`; now or later. To
        be called only if it `covers` publishes."""

        def decided(error: FastsseError | None) -> None:
            if error is not None:
                refused(_as_problem(error))
                return
            try:
                then()
            except FastsseError as failure:
                refused(failure)

        self.ask("publish", tuple(topics), rights, request, decided)

    def ask(
        self,
        operation: Operation,
        topics: Sequence[str],
        rights: Rights | None,
        request: Request,
        decided: Decided,
        *,
        may_wait: bool = True,
    ) -> None:
        """Calls `decided` with None, Forbidden or Undecided: within the call if the answer is kept,
        else later, unless it may not wait. O(topics)."""
        who = self._who(operation, rights, request)
        mark = blake2b(orjson.dumps(who), digest_size=16).digest()
        now_s = time.monotonic()
        keys = {_key(mark, topic): topic for topic in topics}
        missing = {key: topic for key, topic in keys.items() if not self._allows(key, now_s)}
        if not missing:
            self._counts["kept"] += 1
            decided(None)
            return
        whole = blake2b(b"".join(sorted(missing)), digest_size=16).digest()
        kept = self._kept.get(whole)
        if kept is not None and kept[0] > now_s and kept[1] is not None:
            self._counts["kept"] += 1
            decided(Forbidden(kept[1]))
        elif may_wait:
            self._wait(whole, missing, who, decided)

    def close(self) -> None:
        """Ends what is under way; no client is answered."""
        for task in self._tasks:
            task.cancel()
        if self._client is not None:
            closing = asyncio.get_running_loop().create_task(self._client.close())
            closing.add_done_callback(self._tasks.discard)
            self._tasks.add(closing)
            self._client = None

    def _who(self, operation: str, rights: Rights | None, request: Request) -> dict[str, Any]:
        who: dict[str, Any] = {"operation": operation}
        if rights is not None:
            who |= {
                "subject": rights.subject,
                "token_id": rights.token_id,
                "payload": rights.payload,
            }
        if self._headers:
            given = request.headers
            who["headers"] = {
                name: given[raw].decode("latin-1") for name, raw in self._headers if raw in given
            }
        return who

    def _allows(self, key: bytes, now_s: float) -> bool:
        kept = self._kept.get(key)
        return kept is not None and kept[0] > now_s and kept[1] is None

    def _wait(
        self, whole: bytes, missing: dict[bytes, str], who: dict[str, Any], decided: Decided
    ) -> None:
        waiting = self._waiting.get(whole)
        if waiting is not None:
            waiting.append(decided)
        elif self._client is None or len(self._waiting) >= WAITING_MAX:
            self._counts["full"] += 1
            decided(Undecided())
        else:
            self._waiting[whole] = [decided]
            task = asyncio.get_running_loop().create_task(
                self._question(self._client, whole, missing, who)
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _question(
        self,
        client: OutboundClient,
        whole: bytes,
        missing: dict[bytes, str],
        who: dict[str, Any],
    ) -> None:
        outcome: FastsseError | None = Undecided()
        try:
            said = await self._said(client, list(missing.values()), who)
        except OutboundError as error:
            self._counts["failed"] += 1
            self._outage.lasts(str(error), asyncio.get_running_loop().time())
        except Exception:
            self._counts["failed"] += 1
            log.exception("A question to the authorization callback failed.")
        else:
            self._outage.is_over()
            self._counts["allowed" if said.is_allowed else "refused"] += 1
            reason = None if said.is_allowed else said.reason
            outcome = None if reason is None else Forbidden(reason)
            for key in missing if said.is_allowed else (whole,):
                self._keep(key, said.ttl_s, reason)
        for decided in self._waiting.pop(whole):
            decided(outcome)

    async def _said(
        self, client: OutboundClient, topics: Sequence[str], who: dict[str, Any]
    ) -> _Said:
        """The answer for all topics. Raises OutboundError."""
        ttl_s = self._ttl_s
        for first in range(0, len(topics), TOPICS_MAX):
            self._counts["asked"] += 1
            body = orjson.dumps({**who, "topics": topics[first : first + TOPICS_MAX]})
            message_id = f"authorize.{self._counts['asked']}.{time.time_ns()}"
            try:
                answer = await client.post_once(self._url, body, message_id=message_id)
            except OutboundError as error:
                if error.status not in _REFUSING:
                    raise
                return _Said(False, ttl_s, _REFUSED)
            said = _read(answer.body, ttl_s)
            if not said.is_allowed:
                return said
            ttl_s = said.ttl_s
        return _Said(True, ttl_s, "")

    def _keep(self, key: bytes, ttl_s: float, reason: str | None) -> None:
        if ttl_s <= 0:
            return
        self._kept[key] = (time.monotonic() + ttl_s, reason)
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)


def _key(mark: bytes, topic: str) -> bytes:
    return blake2b(topic.encode(), digest_size=16, key=mark).digest()


def _read(body: bytes, ttl_s: float) -> _Said:
    """An answer: `{"allow": true, "ttl": 10, "reason": "…"}`. Raises OutboundError."""
    try:
        said = orjson.loads(body)
    except ValueError:
        raise OutboundError("the answer is not JSON") from None
    if not isinstance(said, dict) or not isinstance(said.get("allow"), bool):
        raise OutboundError("the answer has no member allow that is true or false")
    asked_s = said.get("ttl", ttl_s)
    if not isinstance(asked_s, int | float) or not math.isfinite(asked_s) or asked_s < 0:
        raise OutboundError("the member ttl of the answer is no number of seconds")
    reason = said.get("reason")
    text = _REFUSED
    if isinstance(reason, str) and reason.isprintable() and reason:
        text = reason[:_REASON_CHARS_MAX]
    return _Said(said["allow"], min(ttl_s, float(asked_s)), text)


def _as_problem(error: FastsseError) -> FastsseError:
    if not isinstance(error, Undecided):
        return error
    detail = "It can't be decided now whether this is allowed. Retry the request later."
    return Problem(
        503, detail, header_lines=b"Retry-After: 1\r\n", members={"reason": error.reason}
    )
