"""Tickets: what a page puts into an EventSource's URL, where a token would end up in logs.

A ticket is a random text that stands for a token's rights, once, within seconds. It is issued to
whoever shows the token in a header. The node's desk knows tickets by their hash and gives the
rights out a single time, whichever worker asks.
"""

import secrets
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

from fastsse.auth.rights import Rights
from fastsse.desks.control import Broadcast, Control, Publish, Store
from fastsse.errors import FastsseError, Refused, Unauthorised

__all__ = ["SUBJECT", "TicketDesk", "Tickets"]

SUBJECT: Final = "tickets"
# 192 bits.
_TICKET_BYTES: Final = 24
_TICKET_CHARS: Final = 32
# About 1 KiB each; and rights that are larger than this get none.
TICKETS_MAX: Final = 100_000
_RIGHTS_MAX_BYTES: Final = 64 * 1024
TICKETS_MAX_BYTES: Final = 128 * 1024 * 1024
_HASH_BYTES: Final = 16
_ISSUE: Final = b"i"
_REDEEM: Final = b"r"
_DONE: Final = b"+"
_NOT_DONE: Final = b"-"


class TicketDesk:
    """Keeps a node's tickets in memory: none outlives a restart; or in the vault that nodes share,
    where one can be spent at any of them. Made by `control.Desks`.

    `now_s` is a clock that only goes on. Questions are `i` hash lifetime-in-ms(8 bytes) rights, and
    `r` hash.
    """

    def __init__(
        self,
        broadcast: Broadcast,
        store: Store,
        publish: Publish,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now_s = now_s
        self._vault = store.vault
        self._tickets: dict[bytes, tuple[float, bytes]] = {}  # In the order of their ends.
        self._bytes = 0

    def asked(self, worker: int, message: bytes, answer: Callable[[bytes], None]) -> None:
        """Issues or redeems. O(1), beside those that ended."""
        self._forget_ended()
        name = message[1 : 1 + _HASH_BYTES]
        if message[:1] == _REDEEM:
            self._hand_out(name, answer)
            return
        lifetime_ms = int.from_bytes(message[1 + _HASH_BYTES : 9 + _HASH_BYTES])
        rights = message[9 + _HASH_BYTES :]
        if self._vault is None:
            answer(self._issue(name, lifetime_ms / 1000, rights))
        else:
            said = {True: _DONE, False: _NOT_DONE}
            self._vault.put(name, rights, lifetime_ms, lambda kept: answer(said[kept]))

    def told(self, worker: int, message: bytes) -> None:
        """Nothing is told."""

    def left(self, worker: int) -> None:
        """Tickets are not a worker's."""

    def _hand_out(self, name: bytes, answer: Callable[[bytes], None]) -> None:
        if self._vault is None:
            answer(self._redeem(name))
            return

        def taken(rights: bytes | None) -> None:
            answer(_NOT_DONE if rights is None else _DONE + rights)

        self._vault.take(name, taken)

    def _issue(self, name: bytes, lifetime_s: float, rights: bytes) -> bytes:
        too_many = len(self._tickets) >= TICKETS_MAX
        if too_many or self._bytes + len(rights) > TICKETS_MAX_BYTES:
            return _NOT_DONE
        self._tickets[name] = (self._now_s() + lifetime_s, rights)
        self._bytes += len(rights)
        return _DONE

    def _redeem(self, name: bytes) -> bytes:
        found = self._tickets.pop(name, None)
        if found is None:
            return _NOT_DONE
        until_s, rights = found
        self._bytes -= len(rights)
        return _DONE + rights if self._now_s() < until_s else _NOT_DONE

    def _forget_ended(self) -> None:
        now_s = self._now_s()
        while self._tickets:
            name = next(iter(self._tickets))
            until_s, rights = self._tickets[name]
            if until_s > now_s:
                return
            del self._tickets[name]
            self._bytes -= len(rights)


class Tickets:
    """A worker's way to the desk. Loop thread only.

    Arguments:
        control: the worker's.
        lifetime_s: how long a ticket may be spent.
        now_s: unix seconds, for rights that end meanwhile.
    """

    def __init__(
        self, control: Control, lifetime_s: float, now_s: Callable[[], float] = time.time
    ) -> None:
        self._control = control
        self._now_s = now_s
        self.lifetime_s: Final = lifetime_s

    def issue(self, rights: Rights, done: Callable[[str | FastsseError], None]) -> None:
        """Gives `done` a ticket for these rights, or Refused when there are too many or the
        desk can't be reached."""
        packed = rights.pack()
        if len(packed) > _RIGHTS_MAX_BYTES:
            done(Refused("tickets", 1))
            return
        ticket = secrets.token_urlsafe(_TICKET_BYTES)
        lifetime_ms = round(self.lifetime_s * 1000).to_bytes(8)

        def answered(answer: bytes | FastsseError) -> None:
            done(ticket if answer == _DONE else Refused("tickets", 1))

        message = b"".join((_ISSUE, _hash(ticket.encode()), lifetime_ms, packed))
        self._control.ask(SUBJECT, message, answered)

    def redeem(self, ticket: bytes, done: Callable[[Rights | FastsseError], None]) -> None:
        """Gives `done` the rights of a ticket, which is spent then, or Unauthorised; Refused when
        the desk can't be reached."""
        if len(ticket) != _TICKET_CHARS:
            done(_not_valid())
            return

        def answered(answer: bytes | FastsseError) -> None:
            if isinstance(answer, FastsseError):
                done(Refused("tickets", 1))
            elif answer[:1] != _DONE:
                done(_not_valid())
            else:
                rights = Rights.unpack(answer[1:])
                ended = rights.expires_s is not None and rights.expires_s <= self._now_s()
                done(_not_valid() if ended else rights)

        self._control.ask(SUBJECT, _REDEEM + _hash(ticket), answered)


def _not_valid() -> Unauthorised:
    return Unauthorised("The ticket was spent, has ended, or is none.")


def _hash(ticket: bytes) -> bytes:
    return blake2b(ticket, digest_size=_HASH_BYTES).digest()
