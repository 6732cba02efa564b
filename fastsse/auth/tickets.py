"""Tickets: a page puts one into the URL of an EventSource, because a token there would reach logs.

A ticket is a random text that stands for the rights of a token. It is issued to a client that sends
the token in a header, and it must be opened within seconds. An EventSource reconnects with the same
URL, so the ticket stays valid until the end of its token, but only for the client that opened it
first:

    the first open     gets a cookie that belongs to the ticket
    a later one        sends that cookie, from any address; or, if the client keeps no cookie,
                       has the same User-Agent, Origin and address prefix as the first

A ticket has one open stream: the newest. The control service of the node, or the shared store of
several nodes, stores hashes of tickets and cookies.
"""

import secrets
import time
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Final, NamedTuple

import orjson

from fastsse.auth.rights import Rights
from fastsse.auth.ticket_store import TicketStore
from fastsse.control.service import Broadcast, ControlClient, ControlStore, Publish
from fastsse.errors import FastsseError, Unauthorised, Unavailable

__all__ = ["SUBJECT", "Opened", "TicketService", "Tickets"]

SUBJECT: Final = "tickets"
# 192 bits.
_TICKET_BYTES: Final = 24
_TICKET_CHARS: Final = 32
_RIGHTS_BYTES_MAX: Final = 64 * 1024
_HASH_BYTES: Final = 16
_NO_HASH: Final = bytes(_HASH_BYTES)
#: How long an opened ticket stays valid if its token has no end.
UNENDING_S: Final = 24 * 3600.0
# Number of ticket cookies in one browser. With more open tickets, some clients return without their
# cookie.
_COOKIES: Final = 16

_ISSUE, _OPEN, _LIVE = b"i", b"o", b"l"
_DONE, _FIRST, _AGAIN, _NOT_DONE, _NOT_NOW = b"+", b"1", b"2", b"-", b"!"
# Prefixes of the hash of a ticket, for its entries: rights; client and rights; stream.
_ISSUED, _BOUND, _STREAM = b"i", b"b", b"s"


class TicketService:
    """Stores the tickets of a node: in its own store, or in the store that nodes share, so that a
    ticket can be opened at any of them. Made by `service.Services`.

    `now_s` is unix seconds. Requests are

        i hash lifetime-in-ms(8 bytes) rights     + or -
        o hash cookie print new-cookie            1 (the first open) or 2, and rights; or -;
                                                  or ! while the store can't be asked
        l hash lifetime-in-ms(8 bytes) stream     + and the stream before, or -
    """

    def __init__(
        self,
        broadcast: Broadcast,
        store: ControlStore,
        publish: Publish,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._now_s = now_s
        self._one_time_store = (
            TicketStore(store, now_s) if store.one_time_store is None else store.one_time_store
        )

    def on_request(self, worker: int, message: bytes, answer: Callable[[bytes], None]) -> None:
        """Issues or opens a ticket, or records its stream."""
        kind, rest = message[:1], message[1:]
        name, rest = rest[:_HASH_BYTES], rest[_HASH_BYTES:]
        if kind == _ISSUE:
            said = {True: _DONE, False: _NOT_DONE}
            life_ms, rights = int.from_bytes(rest[:8]), rest[8:]
            self._one_time_store.put(
                _ISSUED + name, rights, life_ms, lambda kept: answer(said[kept])
            )
        elif kind == _OPEN and len(rest) == 3 * _HASH_BYTES:
            self._open(name, rest[: 2 * _HASH_BYTES], rest[2 * _HASH_BYTES :], answer)
        elif kind == _LIVE:
            self._note_stream(name, int.from_bytes(rest[:8]), rest[8:], answer)
        else:
            answer(_NOT_DONE)

    def on_message(self, worker: int, message: bytes) -> None:
        """Not used."""

    def on_worker_gone(self, worker: int) -> None:
        """Not used: tickets do not belong to a worker."""

    def _open(
        self, name: bytes, proof: bytes, cookie: bytes, answer: Callable[[bytes], None]
    ) -> None:
        """Opens the ticket for the client that was first, or makes this client the first. The store
        accepts one of several simultaneous opens; the others are compared with that one."""

        def judge(bound: bytes | FastsseError | None) -> None:
            if isinstance(bound, bytes):
                answer(_judged(bound, proof))
            else:
                answer(_NOT_DONE if bound is None else _NOT_NOW)

        def looked(bound: bytes | FastsseError | None) -> None:
            if bound is not None:
                judge(bound)
            else:
                self._one_time_store.get(_ISSUED + name, issued)

        def issued(rights: bytes | FastsseError | None) -> None:
            if not isinstance(rights, bytes):
                judge(rights)
                return

            def put(is_first: bool) -> None:
                if is_first:
                    answer(_FIRST + rights)
                else:
                    self._one_time_store.get(_BOUND + name, judge)

            bound = cookie + proof[_HASH_BYTES:] + rights
            self._one_time_store.put(_BOUND + name, bound, self._life_ms(rights), put)

        self._one_time_store.get(_BOUND + name, looked)

    def _life_ms(self, rights: bytes) -> int:
        ends_s = orjson.loads(rights)["expires_s"]
        life_s = UNENDING_S if ends_s is None else ends_s - self._now_s()
        return max(1, round(life_s * 1000))

    def _note_stream(
        self, name: bytes, life_ms: int, stream: bytes, answer: Callable[[bytes], None]
    ) -> None:
        def exchanged(before: bytes | None) -> None:
            answer(_NOT_DONE if before is None else _DONE + before)

        self._one_time_store.exchange(_STREAM + name, stream, life_ms, exchanged)


def _judged(bound: bytes, proof: bytes) -> bytes:
    """The answer to a client that returns: checks its cookie, else its fingerprint."""
    cookie, mark = bound[:_HASH_BYTES], bound[_HASH_BYTES : 2 * _HASH_BYTES]
    shown, seen = proof[:_HASH_BYTES], proof[_HASH_BYTES:]
    same = secrets.compare_digest
    if not (same(shown, cookie) or same(seen, mark)):
        return _NOT_DONE
    return _AGAIN + bound[2 * _HASH_BYTES :]


class Opened(NamedTuple):
    """An opened ticket: its rights, its hash, and the `Set-Cookie` value for a first open (without
    attributes that depend on the request), None for a later one."""

    rights: Rights
    name: bytes
    cookie: bytes | None


class Tickets:
    """Issues and opens tickets by the control service. Loop thread only.

    Arguments:
        control: the control client of the worker.
        lifetime_s: how long a new ticket may wait for its first open.
        now_s: unix seconds, for rights that end in the meantime.
    """

    def __init__(
        self, control: ControlClient, lifetime_s: float, now_s: Callable[[], float] = time.time
    ) -> None:
        self._control = control
        self._now_s = now_s
        self.lifetime_s: Final = lifetime_s

    def issue(self, rights: Rights, done: Callable[[str | FastsseError], None]) -> None:
        """Calls `done` with a ticket for these rights, or with Refused if the control service can't
        store it or can't be reached."""
        packed = rights.pack()
        if len(packed) > _RIGHTS_BYTES_MAX:
            done(Unavailable("tickets", 1))
            return
        ticket = secrets.token_urlsafe(_TICKET_BYTES)
        lifetime_ms = round(self.lifetime_s * 1000).to_bytes(8)

        def answered(answer: bytes | FastsseError) -> None:
            done(ticket if answer == _DONE else Unavailable("tickets", 1))

        message = b"".join((_ISSUE, _hash(ticket.encode()), lifetime_ms, packed))
        self._control.ask(SUBJECT, message, answered)

    def open(
        self,
        ticket: bytes,
        headers: Mapping[bytes, bytes],
        network: str,
        done: Callable[[Opened | FastsseError], None],
    ) -> None:
        """Calls `done` with the opened ticket, or Unauthorised; Refused if the control service
        can't be reached.

        Arguments:
            headers: those of the request; User-Agent, Origin and Cookie are used.
            network: the address prefix of the client.
        """
        if len(ticket) != _TICKET_CHARS:
            done(_not_valid())
            return
        name = _hash(ticket)
        cookie = secrets.token_urlsafe(_TICKET_BYTES).encode()

        def answered(answer: bytes | FastsseError) -> None:
            if isinstance(answer, FastsseError) or answer == _NOT_NOW:
                done(Unavailable("tickets", 1))
            elif answer[:1] not in (_FIRST, _AGAIN):
                done(_not_valid())
            else:
                rights = Rights.unpack(answer[1:])
                is_first = answer[:1] == _FIRST
                done(self._opened(rights, name, cookie if is_first else None))

        proof = _shown_cookie(headers, name) + _print_of(headers, network)
        self._control.ask(SUBJECT, b"".join((_OPEN, name, proof, _hash(cookie))), answered)

    def _opened(self, rights: Rights, name: bytes, cookie: bytes | None) -> Opened | FastsseError:
        left_s = self._left_s(rights)
        if left_s <= 0:
            return _not_valid()
        if cookie is not None:
            named = b"%b=%b; Max-Age=%d" % (_cookie_name(name), cookie, max(1, round(left_s)))
            return Opened(rights, name, named)
        return Opened(rights, name, None)

    def note_stream(
        self, opened: Opened, stream_id: bytes, before: Callable[[bytes], None]
    ) -> None:
        """Records the current stream of a ticket; calls `before` with its earlier one, if any."""

        def answered(answer: bytes | FastsseError) -> None:
            if not isinstance(answer, FastsseError) and answer[:1] == _DONE:
                before(answer[1:])

        life_ms = max(1, round(self._left_s(opened.rights) * 1000)).to_bytes(8)
        self._control.ask(SUBJECT, b"".join((_LIVE, opened.name, life_ms, stream_id)), answered)

    def _left_s(self, rights: Rights) -> float:
        return UNENDING_S if rights.expires_s is None else rights.expires_s - self._now_s()


def _not_valid() -> Unauthorised:
    return Unauthorised("The ticket is unknown, has expired, or belongs to another client.")


def _cookie_name(name: bytes) -> bytes:
    return b"fastsse-ticket-%x" % (name[0] % _COOKIES)


def _shown_cookie(headers: Mapping[bytes, bytes], name: bytes) -> bytes:
    """The hash of the ticket cookie that this client sent."""
    wanted = _cookie_name(name)
    for pair in headers.get(b"cookie", b"").split(b";"):
        given, _, value = pair.strip(b" \t").partition(b"=")
        if given == wanted and value:
            return _hash(value)
    return _NO_HASH


def _print_of(headers: Mapping[bytes, bytes], network: str) -> bytes:
    """The fingerprint of a client without cookies. Its parts are delimited, so none can be taken
    for another."""
    parts = (headers.get(b"user-agent", b""), headers.get(b"origin", b""), network.encode())
    return _hash(b"".join(b"%d:%b" % (len(part), part) for part in parts))


def _hash(text: bytes) -> bytes:
    return blake2b(text, digest_size=_HASH_BYTES).digest()
