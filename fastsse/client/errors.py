"""Errors of the client: refused, unreachable, or an unknown outcome."""

from typing import Final

from fastsse.errors import FastsseError

_PASSING: Final = (408, 425, 429)


class ClientError(FastsseError):
    """The base of all errors of the client; its text is a sentence for people.

    `exit_status` is the exit status of a command that ends with it. `published` is the number of
    events that `Publisher.publish_many` had published before.
    """

    exit_status = 1
    published = 0


class Unreachable(ClientError):
    """The connection failed before the request was sent; nothing was published."""

    exit_status = 3


class OutcomeUnknown(ClientError):
    """The connection failed after a publish was sent: it may be published or not."""

    exit_status = 3


class Refused(ClientError):
    """The server refused the request.

    `status` is the HTTP status. `field` is the invalid field that the answer names, or "". `line`
    is the invalid line of a batch, counted from 1, if the answer names one. `count` is the number
    of events of a streamed publish that are published nevertheless, `last` the id of the last.
    `retry_after_s` is how long the server asks to wait; None: it asks nothing.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        field: str = "",
        line: int | None = None,
        count: int = 0,
        last: str = "",
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.field = field
        self.line = line
        self.count = count
        self.last = last
        self.retry_after_s: float | None = None

    @property
    def is_passing(self) -> bool:
        """Whether the same request may succeed later: the server is busy, or a proxy does not reach
        it."""
        return self.status >= 500 or self.status in _PASSING


class EventTooLarge(ClientError):
    """The stream has an event larger than the client accepts (`max_event_bytes`)."""

    def __init__(self, max_event_bytes: int) -> None:
        super().__init__(f"The stream has an event of more than {max_event_bytes} bytes.")
