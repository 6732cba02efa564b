"""What a client can meet: the server said no, could not be reached, or may have done it."""

from fastsse.errors import FastsseError


class ClientError(FastsseError):
    """Everything that the client raises; its text is a sentence for people.

    `exit_status` is what a command that it ends returns.
    """

    exit_status = 1


class Unreachable(ClientError):
    """No connection, or one that broke before anything was asked; nothing was done."""

    exit_status = 3


class OutcomeUnknown(ClientError):
    """The connection broke after a publish was sent: it may be published or not."""

    exit_status = 3


class Refused(ClientError):
    """The server answered and said no.

    `status` is the HTTP status, `field` what the answer named as wrong (or ""), `line` the
    offending line of a batch, counted from 1, if it named one.
    """

    def __init__(self, status: int, detail: str, field: str = "", line: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.field = field
        self.line = line


class EventTooLarge(ClientError):
    """A stream holds an event larger than the client takes."""

    def __init__(self, max_event_bytes: int) -> None:
        super().__init__(f"The stream holds an event of more than {max_event_bytes} bytes.")
