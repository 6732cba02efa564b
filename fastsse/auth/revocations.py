"""Revocation: refuses valid tokens and ends their streams.

A revocation names a token (`jti`), a subject (`sub`), a time before which tokens were issued, or
several of these. Then a token must match all of them. A token without `iat` matches every time. The
control service of the node stores revocations and sends them to all workers. Each worker refuses
such tokens, and the native core ends the streams that they opened.
"""

import asyncio
import time
from bisect import bisect_right, insort
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import orjson

from fastsse.auth.claims import TIME_S_MAX
from fastsse.auth.objects import Odd, read_object
from fastsse.auth.rights import Rights, claim_hash
from fastsse.control.service import Broadcast, ControlClient, ControlStore, Publish
from fastsse.errors import BadRequest, FastsseError, Unavailable

__all__ = ["SUBJECT", "Revocation", "RevocationService", "Revocations"]

SUBJECT: Final = "revocations"
REVOCATIONS_MAX: Final = 100_000
# The default time that a revocation is kept: longer than tokens should live.
KEPT_S: Final = 400 * 24 * 3600.0
_TEXT_BYTES_MAX: Final = 1024
_MEMBERS: Final = ("jti", "sub", "issued_before", "expires")
_ADDED_UNTIL_TIDY: Final = 1_000
_LIST: Final = b"?"
# At most 2.2 KiB each, so a page fits into a message.
_PAGE: Final = 250
_DONE: Final = b"+"
_NOT_DONE: Final = b"-"
# A worker that does not confirm a revocation within this time is stuck, and the request fails.
CONFIRM_S: Final = 2.0


class Revocation(NamedTuple):
    """A revocation of the tokens that match every given member, and until when it is kept."""

    jti: str | None
    sub: str | None
    issued_before: float | None
    expires: float

    @classmethod
    def of_json(cls, body: bytes | bytearray, now_s: float | None = None) -> "Revocation":
        """Reads `{"jti": …, "sub": …, "issued_before": …, "expires": …}`; times are unix seconds.

        `expires` should be the latest end (`exp`) of the revoked tokens. The default is 400 days
        from now. Raises BadRequest.
        """
        try:
            members = read_object(body)
        except Odd as error:
            raise BadRequest("body", f"must be a JSON object; this {error}") from None
        for name in members:
            if name not in _MEMBERS:
                raise BadRequest("body", f"may only have the members {', '.join(_MEMBERS)}")
        kept_s = (time.time() if now_s is None else now_s) + KEPT_S
        expires = _time(members, "expires")
        revocation = cls(
            _text(members, "jti"),
            _text(members, "sub"),
            _time(members, "issued_before"),
            kept_s if expires is None else expires,
        )
        if revocation[:3] == (None, None, None):
            raise BadRequest("body", "must have jti, sub or issued_before")
        return revocation

    @property
    def name(self) -> str:
        """A name; equal revocations have equal names."""
        what = orjson.dumps([self.jti, self.sub, self.issued_before])
        return blake2b(what, digest_size=16).hexdigest()

    def pack(self) -> bytes:
        """The bytes for `unpack`."""
        return orjson.dumps([*self])

    @classmethod
    def unpack(cls, packed: bytes) -> "Revocation":
        """The revocation from the bytes of `pack`."""
        return cls(*orjson.loads(packed))


def _text(members: dict[str, Any], name: str) -> str | None:
    value = members.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value.encode()) <= _TEXT_BYTES_MAX:
        raise BadRequest(name, f"must be text of 1 to {_TEXT_BYTES_MAX} bytes")
    return value


def _time(members: dict[str, Any], name: str) -> float | None:
    value = members.get(name)
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value <= TIME_S_MAX:
        raise BadRequest(name, "must be unix seconds")
    return float(value)


class _Unconfirmed:
    """A revocation that some workers have not confirmed, and the request that waits for it."""

    __slots__ = ("answer", "timer", "workers")

    def __init__(self, workers: set[int], answer: Callable[[bytes], None]) -> None:
        self.workers = workers
        self.answer = answer
        self.timer: asyncio.TimerHandle | None = None


class RevocationService:
    """Stores the revocations of a node, each under its name. Made by `service.Services`.

    A request is a revocation, or `?` and a name. A revocation is broadcast, and each worker
    confirms it by its name. It is answered with `+` when all workers that verify tokens have
    confirmed it; with `-` if one has not within CONFIRM_S, or if there are too many. A name is
    answered with a JSON list: the name to continue from, empty at the end, and the revocations
    after the requested name.
    """

    def __init__(
        self,
        broadcast: Broadcast,
        store: ControlStore,
        publish: Publish,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._broadcast = broadcast
        self._store = store
        self._now_s = now_s
        kept = ((name, Revocation.unpack(packed)) for name, packed in store.items())
        self._kept: dict[str, Revocation] = dict(kept)
        self._names = sorted(self._kept)
        self._workers: set[int] = set()
        self._unconfirmed: dict[str, list[_Unconfirmed]] = {}
        # Revocations of other nodes apply here too.
        store.listen("", lambda name, packed: self._learn(packed))

    def on_request(self, worker: int, message: bytes, answer: Callable[[bytes], None]) -> None:
        """Sends a page of revocations, or stores a new one."""
        # A worker verifies nothing before it has requested all revocations.
        self._workers.add(worker)
        if message[:1] == _LIST:
            answer(self._page(message[1:].decode()))
        else:
            self._take_and_answer(Revocation.unpack(message), answer)

    def on_message(self, worker: int, message: bytes) -> None:
        """A worker confirms a revocation, by its name."""
        self._confirmed(worker, message.decode())

    def on_worker_gone(self, worker: int) -> None:
        """The worker no longer verifies tokens, so it confirms nothing."""
        self._workers.discard(worker)
        for name in list(self._unconfirmed):
            self._confirmed(worker, name)

    def _take_and_answer(self, revocation: Revocation, answer: Callable[[bytes], None]) -> None:
        """Answers once, when every worker has confirmed. Registers the wait before the broadcast,
        because a single worker confirms within that call."""
        name = revocation.name
        unconfirmed = _Unconfirmed(set(self._workers), answer)
        self._unconfirmed.setdefault(name, []).append(unconfirmed)
        if not self._take(revocation):
            self._end(name, unconfirmed, _NOT_DONE)
        elif unconfirmed.workers:
            late = partial(self._end, name, unconfirmed, _NOT_DONE)
            unconfirmed.timer = asyncio.get_running_loop().call_later(CONFIRM_S, late)

    def _confirmed(self, worker: int, name: str) -> None:
        for unconfirmed in list(self._unconfirmed.get(name, ())):
            unconfirmed.workers.discard(worker)
            if not unconfirmed.workers:
                self._end(name, unconfirmed, _DONE)

    def _end(self, name: str, unconfirmed: "_Unconfirmed", answer: bytes) -> None:
        waiting = self._unconfirmed[name]
        waiting.remove(unconfirmed)
        if not waiting:
            del self._unconfirmed[name]
        if unconfirmed.timer is not None:
            unconfirmed.timer.cancel()
        unconfirmed.answer(answer)

    def _page(self, after: str) -> bytes:
        if not after:
            self._forget_ended()
        begin = bisect_right(self._names, after)
        names = self._names[begin : begin + _PAGE]
        more = names[-1] if begin + _PAGE < len(self._names) else ""
        return orjson.dumps([more, [[*self._kept[name]] for name in names]])

    def _learn(self, packed: bytes) -> None:
        try:
            revocation = Revocation.unpack(packed)
        except (ValueError, TypeError):
            return  # Another value under one of our keys.
        self._take(revocation)

    def _take(self, revocation: Revocation) -> bool:
        """Stores and broadcasts it; False if there are too many."""
        name = revocation.name
        known = self._kept.get(name)
        if known is None and len(self._kept) >= REVOCATIONS_MAX:
            self._forget_ended()
            if len(self._kept) >= REVOCATIONS_MAX:
                return False
        if known is None:
            insort(self._names, name)
        else:
            revocation = revocation._replace(expires=max(known.expires, revocation.expires))
        self._kept[name] = revocation
        packed = revocation.pack()
        self._store.put(name, packed)
        self._broadcast(packed)
        return True

    def _forget_ended(self) -> None:
        now_s = self._now_s()
        for name in [name for name, one in self._kept.items() if one.expires <= now_s]:
            del self._kept[name]
            self._store.put(name, None)
        self._names = sorted(self._kept)


class Revocations:
    """The revocations that a worker knows. Loop thread only.

    Arguments:
        control: the control client of the worker.
        now_s: unix seconds.

    `on_revoked(subject_hash, token_hash, issued_before_s)` is called for each revocation, also for
    those from before this worker started; 0 matches any value.
    """

    def __init__(self, control: ControlClient, now_s: Callable[[], float] = time.time) -> None:
        self._control = control
        self._now_s = now_s
        self._by_token: dict[str, list[Revocation]] = {}
        self._by_subject: dict[str, list[Revocation]] = {}
        self._by_time: list[Revocation] = []
        self._added = 0
        self.on_revoked: Callable[[int, int, int], None] | None = None
        #: Whether all earlier revocations are known. Until then nothing should be verified.
        self.known = False
        control.listen(SUBJECT, self._on_broadcast)
        control.on_back.append(self.learn)
        self.learn()

    def learn(self, done: Callable[[FastsseError | None], None] | None = None) -> None:
        """Requests all revocations from the control service. After a restart of the service this
        also sends it the revocations that it has lost."""
        listed: set[Revocation] = set()

        def answered(answer: bytes | FastsseError) -> None:
            if isinstance(answer, FastsseError):
                outcome: FastsseError | None = Unavailable("revocations", 1)
            else:
                more, members = orjson.loads(answer)
                page = [Revocation(*each) for each in members]
                listed.update(page)
                for one in page:
                    self._add(one)
                if more:
                    self._control.ask(SUBJECT, _LIST + more.encode(), answered)
                    return
                self.known = True
                self.forget_ended()
                self._remind(listed)
                outcome = None
            if done is not None:
                done(outcome)

        self._control.ask(SUBJECT, _LIST, answered)

    def _remind(self, listed: set[Revocation]) -> None:
        """Sends the known revocations to a control service that has restarted without a store."""
        places = (*self._by_token.values(), *self._by_subject.values(), self._by_time)
        for one in [one for place in places for one in place if one not in listed]:
            self.revoke(one, lambda error: None)

    def revoke(self, revocation: Revocation, done: Callable[[FastsseError | None], None]) -> None:
        """Revokes in the whole node; calls `done` with None when every worker refuses such tokens,
        or with Refused. Other nodes follow when they read it in the shared store."""

        def answered(answer: bytes | FastsseError) -> None:
            done(None if answer == _DONE else Unavailable("revocations", 1))

        self._control.ask(SUBJECT, revocation.pack(), answered)

    def covers(self, rights: Rights) -> bool:
        """Whether the token of these rights is revoked. O(1 + revocations of its subject)."""
        if not (self._by_token or self._by_subject or self._by_time):
            return False
        now_s = self._now_s()
        candidates = (
            *self._by_token.get(rights.token_id or "", ()),
            *self._by_subject.get(rights.subject or "", ()),
            *self._by_time,
        )
        return any(one.expires > now_s and _holds(one, rights) for one in candidates)

    @property
    def generation(self) -> int:
        """A number that changes with each new revocation."""
        return self._added

    def _on_broadcast(self, message: bytes) -> None:
        revocation = Revocation.unpack(message)
        self._add(revocation)
        self._control.notify(SUBJECT, revocation.name.encode())

    def _add(self, revocation: Revocation) -> None:
        if revocation.expires <= self._now_s():
            return
        place = self._place(revocation)
        if revocation in place:
            return
        place[:] = [one for one in place if not _outdoes(revocation, one)]
        place.append(revocation)
        self._added += 1
        if self._added % _ADDED_UNTIL_TIDY == 0:
            self.forget_ended()
        if self.on_revoked is not None:
            before_s = 0 if revocation.issued_before is None else _up(revocation.issued_before)
            self.on_revoked(claim_hash(revocation.sub), claim_hash(revocation.jti), before_s)

    def _place(self, revocation: Revocation) -> list[Revocation]:
        if revocation.jti is not None:
            return self._by_token.setdefault(revocation.jti, [])
        if revocation.sub is not None:
            return self._by_subject.setdefault(revocation.sub, [])
        return self._by_time

    def forget_ended(self) -> None:
        """Drops expired revocations. O(revocations)."""
        now_s = self._now_s()
        for places in (self._by_token, self._by_subject):
            for name in list(places):
                places[name] = [one for one in places[name] if one.expires > now_s]
                if not places[name]:
                    del places[name]
        self._by_time = [one for one in self._by_time if one.expires > now_s]


def _outdoes(new: Revocation, old: Revocation) -> bool:
    """Whether the new revocation covers all tokens of the old one, for at least as long."""
    if (new.jti, new.sub) != (old.jti, old.sub) or new.expires < old.expires:
        return False
    before_s = float("inf") if new.issued_before is None else new.issued_before
    return before_s >= (float("inf") if old.issued_before is None else old.issued_before)


def _holds(revocation: Revocation, rights: Rights) -> bool:
    if revocation.jti is not None and revocation.jti != rights.token_id:
        return False
    if revocation.sub is not None and revocation.sub != rights.subject:
        return False
    before_s = revocation.issued_before
    return before_s is None or rights.claims[3] < _up(before_s)


def _up(time_s: float) -> int:
    """Whole seconds, rounded up, because streams store whole seconds too."""
    return int(-(-time_s // 1))
