"""A guard and its node, without a server."""

from collections.abc import Callable
from typing import Any

import pytest

from fastsse.auth.guard import SERVICES, Guard, make_guard
from fastsse.auth.jwks import FetchedKeySet
from fastsse.auth.rights import Rights
from fastsse.auth.verifier import Verifier
from fastsse.config import Config
from fastsse.control.service import LocalControlClient
from tests.auth.minting import SECRET


def control() -> LocalControlClient:
    return LocalControlClient(SERVICES, lambda events, done: done(True))


def guard_of(**options: Any) -> Guard:
    """A guard with these options."""
    guard = make_guard(Config(**options), control())
    assert guard is not None
    return guard


def verifier_of(**options: Any) -> Verifier:
    return guard_of(**options).verifier


@pytest.fixture
def verify() -> Callable[[bytes], Rights]:
    """Verifies a subscriber's token with the usual secret."""
    verifier = verifier_of(jwt_key=SECRET)
    return lambda raw: verifier.verify(raw, "subscribe")


class Clock:
    """The time of a key set, which a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(FetchedKeySet.__init__, "__defaults__", (0.0, made))
    return made
