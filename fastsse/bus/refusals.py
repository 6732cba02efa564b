"""Why a batch was refused for good, as it travels to the worker that sent it."""

from collections.abc import Callable
from typing import Any, Final

import orjson

from fastsse.bus.frames import FrameError
from fastsse.errors import (
    Conflict,
    FastsseError,
    KeyReused,
    PreconditionFailed,
    ProducerFenced,
    SequenceGap,
    SequenceRegressed,
    StreamChanged,
    StreamImmutable,
    StreamsFull,
    StreamTypeMismatch,
    TopicEnded,
)

__all__ = ["pack_conflict", "unpack_conflict"]

_MAKERS: Final[dict[str, Callable[..., Conflict]]] = {
    one.reason: one
    for one in (
        TopicEnded,
        PreconditionFailed,
        KeyReused,
        ProducerFenced,
        SequenceGap,
        SequenceRegressed,
        StreamChanged,
        StreamImmutable,
        StreamsFull,
        StreamTypeMismatch,
    )
}


def pack_conflict(error: Conflict) -> bytes:
    """The error as JSON: its reason, and what it is made of."""
    return orjson.dumps([error.reason, *error.made_of])


def unpack_conflict(body: bytes) -> FastsseError:
    """The same error. Raises FrameError."""
    try:
        reason, *made_of = orjson.loads(body)
        made: Any = _MAKERS[reason](*made_of)
    except (ValueError, TypeError, KeyError):
        raise FrameError("a refusal that can't be") from None
    assert isinstance(made, Conflict)
    return made
