"""The native intake of single publishes; see `_intake.pyx`. Loop thread only."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from fastsse.auth.rights import Rights
from fastsse.errors import FastsseError
from fastsse.events import Event
from fastsse.http.request import Target

#: What a header's name means for a publish, by lower-case name.
MEANINGS: Final[dict[bytes, int]]

class Lane:
    """What the intake uses of a connection."""

    _state: int
    _choked: bool
    _at_eof: bool
    _is_within: bool
    _kept: bytes
    _transport: Any
    _wait: Any

    def _join_intake(self, intake: Intake | None) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def on_data(self, data: bytes) -> None: ...
    def on_waiting(self) -> None: ...
    def on_answered(self) -> None: ...
    def answer_taken(
        self,
        outcomes: Sequence[bytes | FastsseError],
        targets: Sequence[KnownTarget],
        headers: RunHeaders | None,
    ) -> None: ...
    def refuse_taken(
        self, error: FastsseError, targets: Sequence[KnownTarget], headers: RunHeaders | None
    ) -> None: ...
    def give_back(self, data: bytes) -> None: ...
    def break_taken(self, targets: Sequence[KnownTarget], headers: RunHeaders | None) -> None: ...

class Tally:
    """A count that native code adds to."""

    count: int

class BegunDigest:
    """The digest of requests with an `Idempotency-Key`, up to the body: BLAKE2b of 16 bytes.

    Arguments:
        text: what distinguishes them besides the body.
    """

    def __init__(self, text: bytes) -> None: ...
    def of_body(self, body: bytes) -> bytes:
        """The digest of the request with this body. O(bytes)."""

class KnownTarget:
    """What a request target says about a publish.

    Arguments:
        target: the parsed target.
        event: an event with everything that the target says, and no data.
    """

    target: Final[Target]
    topics: Final[tuple[str, ...]]

    def __init__(self, target: Target, event: Event) -> None: ...

class OpenStream(KnownTarget):
    """A durable stream that takes appends, as a request that was appended has shown.

    Arguments:
        raw: the request target, by which it is found.
        event: an event of its content, with what each append asks and no data.
        content_type: the header of its appends.
        scope: what stands before the id of a producer in its key.
        encode: gives the data of a body as it is kept, None for a body that is not plainly one
            event; None: a body of text is kept as it is, and one of bytes as base64.
    """

    raw: Final[bytes]
    content_type: Final[bytes]

    def __init__(
        self,
        raw: bytes,
        event: Event,
        content_type: bytes,
        scope: bytes,
        encode: Callable[[bytes], bytes | None] | None,
    ) -> None: ...
    @property
    def generation(self) -> int:
        """The generation of the stream."""

class KnownPublisher:
    """What credentials are worth, as judged before.

    Arguments:
        rights: what they may publish; None: everything.
        still: whether that holds; asked once in a turn of the loop.
        scope: what stands before its keys.
    """

    rights: Final[Rights | None]

    def __init__(self, rights: Rights | None, still: Callable[[], bool], scope: bytes) -> None: ...

class RunHeaders:
    """Headers of a request that its answer, or the line in a log, depends on."""

    lines: Final[bytes]
    headers: Final[dict[bytes, bytes]]

    def __init__(self, lines: bytes, headers: dict[bytes, bytes]) -> None: ...

class Intake:
    """Takes publishes from the connections of one listener.

    Arguments:
        policy: decides what is taken; `http.intake` makes it.
        names: lower-case names of the headers that a request keeps; one without a meaning here
            leaves the request to its connection.
        loop: the event loop.
        deadlines: where connections wait.
        answer_head: an answer up to the number in its Content-Length.
        lines: header lines of every answer to a request without `Origin`.
        is_traced: publishes whose trace is recorded are left to their connection.

    Attributes:
        is_on: whether anything is taken.
        is_draining: nothing is taken, and connections close after their answer.
        keeps_forwarded: whether logs need `X-Forwarded-For`.
        counts_clients: whether each publish is counted for its client first.
        taken: publishes that were taken.
        batches: calls that published them.
    """

    is_on: bool
    is_draining: bool
    keeps_forwarded: bool
    counts_clients: bool
    taken: Final[int]
    batches: Final[int]

    def __init__(
        self,
        policy: Any,
        names: Collection[bytes],
        loop: Any,
        deadlines: Any,
        answer_head: bytes,
        lines: bytes,
        is_traced: bool = False,
    ) -> None: ...
    def take_appends(
        self,
        path: bytes,
        streams: dict[bytes, OpenStream],
        heads: tuple[bytes, bytes],
        line: bytes,
        tails: tuple[bytes, bytes],
    ) -> None:
        """Takes appends to durable streams too.

        Arguments:
            path: of all of them, with a slash at its end.
            streams: those that are open, by request target.
            heads: of the answers without and with a producer, up to the offset.
            line: behind the offset; the lines for a producer follow.
            tails: of both, up to the header lines of all answers.
        """

    def limit(self, head_bytes: int, headers: int, body_bytes: int) -> None:
        """Bounds what is taken; a higher bound than before has no effect."""

    def offer(self, lane: Lane, data: bytes) -> int:
        """Takes whole publishes from the front of bytes that a connection has kept; returns their
        bytes. 0: nothing was changed. The connection must be between two requests."""

    def distrust(self) -> None:
        """Judges every publisher again, from the next request on."""

    def forget_targets(self) -> None:
        """Reads each target again when it comes next. What was taken is published before."""
