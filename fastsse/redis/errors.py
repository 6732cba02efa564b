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

# Errors that are answers of Redis, although the library treats them as errors of the connection.
ANSWERS: Final = (
    exceptions.ResponseError,
    exceptions.BusyLoadingError,
    exceptions.AuthenticationError,
    exceptions.AuthorizationError,
    exceptions.MaxConnectionsError,
)
# The texts that operators read in `/readyz` and the log.
MEANINGS: Final = {
    "LOADING": "Redis is loading its data",
    "OOM": "Redis is out of memory",
    "READONLY": "Redis is a read-only replica",
    "MISCONF": "Redis can't save to its disk",
    "NOAUTH": "Redis requires a password",
    "WRONGPASS": "Redis refuses the user or password",
    "NOPERM": "Redis does not permit this user a command or key that fastsse needs",
    "BUSY": "Redis is busy with a script",
    "CLUSTERDOWN": "the Redis cluster is down",
    "MASTERDOWN": "this replica has lost its master",
    "NOREPLICAS": "Redis has too few replicas to write",
    "MAXCLIENTS": "Redis has too many clients",
    "WRONGTYPE": "a key of the log in Redis holds another type of value",
    "UNBLOCKED": "Redis changed its role to replica",
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
# In scripts, Redis 6.2 gives these errors as sentences.
_SENTENCES: Final = (
    ("max number of clients", "MAXCLIENTS"),
    ("can't run this command", "NOPERM"),
    ("can't access at least one of the keys", "NOPERM"),
    ("no permissions", "NOPERM"),
    ("Authentication required", "NOAUTH"),
    ("invalid username-password", "WRONGPASS"),
)


class AnswerLost(Exception):
    """A connection ended or did not answer. It is unknown whether its last command was executed."""


class AnswerTimeout(AnswerLost):
    """No answer within the time for it."""

    def __init__(self, hint: str = "") -> None:
        super().__init__(f"Redis does not answer{hint}")


class WrongServer(AnswerLost):
    """The connection was ended on purpose: this Redis is not the one that can be written to."""


class RedisRefusal(Exception):
    """Redis answered with an error: the command was not executed.

    Attributes:
        code: the error's name; `ERR` if it has no name of its own.
    """

    def __init__(self, code: str, detail: str) -> None:
        meaning = MEANINGS.get(code)
        super().__init__(f"{meaning} ({code})" if meaning else f"Redis answers {code}: {detail}")
        self.code: Final = code


class TlsMismatch(RedisRefusal):
    """TLS with this Redis failed: one side uses no TLS, or does not trust the other. No command was
    sent."""

    def __init__(self, why: str) -> None:
        super().__init__("TLS", why)
        self.args = (f"no trusted TLS connection to Redis: {why}",)


def error_of_opening(error: Exception) -> "RedisRefusal | AnswerLost":
    """Our error for the client library's error when a connection can't be opened."""
    # The library wraps some answers of Redis in its connection errors.
    inner = error.__cause__ or error.__context__
    for one in (error, inner):
        if isinstance(one, ANSWERS):
            return refusal_of(one)
    if isinstance(inner, ssl.SSLError):
        return TlsMismatch(getattr(inner, "verify_message", "") or inner.reason or str(inner))
    return AnswerLost(f"Redis can't be reached: {first_line(error)}")


def first_line(error: BaseException) -> str:
    """The first line of an error's text."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def refusal_of(error: exceptions.RedisError) -> RedisRefusal:
    """Our refusal for the client library's error. In a script's error the name can be anywhere in
    the text."""
    text = str(error)
    code = next((name for kind, name in _BY_CLASS if isinstance(error, kind)), None)
    if code is None and (found := _WORD.search(text)):
        code = found[0]
    if code is None:
        code = next((name for sentence, name in _SENTENCES if sentence in text), None)
    if code is None and isinstance(error, exceptions.AuthenticationError):
        code = "NOAUTH"
    return RedisRefusal(code or "ERR", text[:200])
