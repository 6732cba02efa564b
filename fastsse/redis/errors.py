"""Errors of Redis: an answer that is an error, or a missing answer."""

import re
import ssl
from typing import Final

from redis import exceptions

__all__ = [
    "AnswerLost",
    "AnswerTimeout",
    "RedisRefusal",
    "TlsMismatch",
    "WrongServer",
    "error_of_opening",
    "first_line",
    "refusal_of",
]

# Errors that are answers although the library counts them to the connection's.
ANSWERS: Final = (
    exceptions.ResponseError,
    exceptions.BusyLoadingError,
    exceptions.AuthenticationError,
    exceptions.AuthorizationError,
    exceptions.MaxConnectionsError,
)
# What operators read in `/readyz` and the log.
MEANINGS: Final = {
    "LOADING": "Redis is loading its data",
    "OOM": "Redis is out of memory",
    "READONLY": "Redis is a read-only replica",
    "MISCONF": "Redis can't save to its disk",
    "NOAUTH": "Redis wants a password",
    "WRONGPASS": "Redis refuses the user or password",
    "NOPERM": "Redis doesn't allow this user what it needs",
    "BUSY": "Redis is busy with a script",
    "CLUSTERDOWN": "the Redis cluster is down",
    "MASTERDOWN": "this replica has lost its master",
    "NOREPLICAS": "Redis has too few replicas to write",
    "MAXCLIENTS": "Redis has too many clients",
    "WRONGTYPE": "a key of ours in Redis holds something else",
    "UNBLOCKED": "Redis has changed its role",
    "NOSCRIPT": "Redis has forgotten a script",
}
_BY_CLASS: Final = (
    (exceptions.BusyLoadingError, "LOADING"),
    (exceptions.OutOfMemoryError, "OOM"),
    (exceptions.ReadOnlyError, "READONLY"),
    (exceptions.NoPermissionError, "NOPERM"),
    (exceptions.NoScriptError, "NOSCRIPT"),
    (exceptions.MasterDownError, "MASTERDOWN"),
    (exceptions.ClusterDownError, "CLUSTERDOWN"),
)
_WORD: Final = re.compile(rf"\b(?:{'|'.join(MEANINGS)})\b")
# Redis 6.2 says it in a sentence when a script asked for it.
_SENTENCES: Final = (
    ("max number of clients", "MAXCLIENTS"),
    ("can't run this command", "NOPERM"),
    ("can't access at least one of the keys", "NOPERM"),
    ("no permissions", "NOPERM"),
    ("Authentication required", "NOAUTH"),
    ("invalid username-password", "WRONGPASS"),
)


class AnswerLost(Exception):
    """A connection ended or kept silent: whether its last command was carried out is unknown."""


class AnswerTimeout(AnswerLost):
    """No answer within the time for it."""

    def __init__(self, hint: str = "") -> None:
        super().__init__(f"Redis does not answer{hint}")


class WrongServer(AnswerLost):
    """The connection was ended on purpose: this Redis is not the one that can be written to."""


class RedisRefusal(Exception):
    """Redis answered with an error: the command was not carried out.

    Attributes:
        code: the error's name, `ERR` when it has none of its own.
    """

    def __init__(self, code: str, detail: str) -> None:
        meaning = MEANINGS.get(code)
        super().__init__(f"{meaning} ({code})" if meaning else f"Redis answers {code}: {detail}")
        self.code: Final = code


class TlsMismatch(RedisRefusal):
    """There is no TLS between us and this Redis that either side would trust. Nothing was asked."""

    def __init__(self, why: str) -> None:
        super().__init__("TLS", why)
        self.args = (f"no TLS with Redis that can be trusted: {why}",)


def error_of_opening(error: Exception) -> "RedisRefusal | AnswerLost":
    """What the client library's error stands for when a connection can't be opened."""
    # What Redis answers there comes wrapped in the library's errors of connections, or does not.
    inner = error.__cause__ or error.__context__
    for one in (error, inner):
        if isinstance(one, ANSWERS):
            return refusal_of(one)
    if isinstance(inner, ssl.SSLError):
        return TlsMismatch(getattr(inner, "verify_message", "") or inner.reason or str(inner))
    return AnswerLost(f"Redis is away: {first_line(error)}")


def first_line(error: BaseException) -> str:
    """What an error says, in short."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def refusal_of(error: exceptions.RedisError) -> RedisRefusal:
    """The refusal that the client library's error stands for. In a script's error the name is
    somewhere in the sentence."""
    text = str(error)
    code = next((name for kind, name in _BY_CLASS if isinstance(error, kind)), None)
    if code is None and (found := _WORD.search(text)):
        code = found[0]
    if code is None:
        code = next((name for sentence, name in _SENTENCES if sentence in text), None)
    if code is None and isinstance(error, exceptions.AuthenticationError):
        code = "NOAUTH"
    return RedisRefusal(code or "ERR", text[:200])
