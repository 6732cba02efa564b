"""What can go wrong, in two families: the caller's fault, and ours or the network's.

`BadRequest` is the caller's: it names the field and becomes a 400 problem. So are `Unauthorised`
and `Forbidden`. `Unavailable` and `StreamRefused` are ours: nothing was changed and the same
request may succeed later.
"""

from typing import ClassVar, Final

__all__ = [
    "BadRequest",
    "EventTooLarge",
    "FastsseError",
    "Forbidden",
    "InvalidEvent",
    "InvalidSubscription",
    "StreamRefused",
    "Unauthorised",
    "Unavailable",
]


class FastsseError(Exception):
    """Everything that this package raises for others to catch."""


class BadRequest(FastsseError):
    """The caller's fault; nothing was changed.

    `field` is the input's name as the caller knows it (`topic`, `id`, …), `detail` one sentence
    about what is allowed, fit for an answer: it holds nothing that the caller did not send.
    """

    status: ClassVar[int] = 400

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.detail = detail


class InvalidEvent(BadRequest):
    """An event that can't be published."""


class EventTooLarge(InvalidEvent):
    """An event with more data than `max_event` allows, in bytes. Becomes a 413."""

    status: ClassVar[int] = 413

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            "data", f"an event may have at most {limit_bytes} bytes (max_event); got {size_bytes}"
        )


class InvalidSubscription(BadRequest):
    """A subscription that can't be opened."""


class Unavailable(FastsseError):
    """A publish that was not taken, whole; the same may be taken after `retry_after_s`.

    `reason` is `memory`, `queue`, `draining` or `backbone`. Becomes a 503 with `Retry-After`.
    """

    def __init__(self, reason: str, retry_after_s: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


class StreamRefused(FastsseError):
    """A subscriber that was not taken; the socket is still its caller's.

    `reason` is `full`, `queue` or `draining`. Never an error status: that would end an
    EventSource for good (WHATWG HTML 9.2.3, "fail the connection").
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Unauthorised(FastsseError):
    """Who asks is not known: no token, or one that is refused. Becomes a 401.

    `detail` is one sentence that says why, fit for an answer and a log: nothing of a token or key
    stands in it.
    """

    status: Final = 401

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Forbidden(FastsseError):
    """Who asks is known and may not do this. Becomes a 403. `detail` as in Unauthorised."""

    status: Final = 403

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail
