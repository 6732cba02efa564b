"""A node of several workers, as far as rights go, and how tests ask it."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from fastsse.auth.guard import Guard, Pending, make_guard
from fastsse.auth.revocations import RevocationService
from fastsse.auth.rights import Rights
from fastsse.auth.tickets import TicketService
from fastsse.config import Config
from fastsse.control.service import LocalControlClient, MemoryControlStore
from fastsse.errors import FastsseError
from tests.auth.minting import SECRET


def bearer(raw: bytes, **more: bytes) -> dict[bytes, bytes]:
    return {b"authorization": b"Bearer " + raw, **{k.encode(): v for k, v in more.items()}}


class Clock:
    def __init__(self) -> None:
        self.now_s = time.time()

    def __call__(self) -> float:
        return self.now_s


class Node:
    """A node of several workers around one control, as far as rights go."""

    def __init__(self, store: MemoryControlStore | None = None, **options: Any) -> None:
        self.clock = Clock()
        makers = {
            "tickets": lambda *ways: TicketService(*ways, self.clock),
            "revocations": lambda *ways: RevocationService(*ways, self.clock),
        }
        self.store = store or MemoryControlStore()
        self.control = LocalControlClient(makers, lambda events, done: done(True), self.store)
        config = Config(**{"jwt_key": SECRET, **options})
        guards = [make_guard(config, self.control, (), self.clock) for _ in range(2)]
        self.one, self.other = [guard for guard in guards if guard is not None]


def got(begin: Callable[..., None], *arguments: Any) -> Any:
    """What a callback is given, within the call."""
    outcomes: list[Any] = []
    begin(*arguments, outcomes.append)
    (outcome,) = outcomes
    return outcome


def spend(
    guard: Guard, ticket: str, headers: dict[bytes, bytes] | None = None, network: str = "n"
) -> Rights | FastsseError | None:
    """What a client gets for a ticket."""
    return opened(guard, ticket, headers, network)[0]


def opened(
    guard: Guard, ticket: str, headers: dict[bytes, bytes] | None = None, network: str = "n"
) -> tuple[Rights | FastsseError | None, bytes | None]:
    """The same, and the cookie that it is given, as a client sends it."""
    with pytest.raises(Pending) as caught:
        guard.subscriber(headers or {}, [("topic", "a"), ("ticket", ticket)], network=network)
    outcome: Rights | FastsseError | None = got(caught.value.wait)
    given = caught.value.opened
    return outcome, given.cookie.partition(b";")[0] if given and given.cookie else None
