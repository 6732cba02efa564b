"""Errors in two families: faults of the caller, and faults of the server or the network.

Faults of the caller are `BadRequest`, which names the field and becomes a 400 problem,
`Unauthorised` and `Forbidden`. Faults of the server are `Unavailable` and `StreamRefused`: nothing
has changed, and the same request may succeed later.
"""

from collections.abc import Mapping
from typing import ClassVar, Final

from fastsse.refusal_reasons import PublishReason, StreamReason, UnavailableReason

__all__ = [
    "AlreadyTaken",
    "BadRequest",
    "Conflict",
    "EventTooLarge",
    "FastsseError",
    "Forbidden",
    "InterceptorFailed",
    "InvalidEvent",
    "InvalidSubscription",
    "KeyReused",
    "NotKept",
    "PreconditionFailed",
    "ProducerFenced",
    "RateExceeded",
    "SchemaMismatch",
    "SequenceGap",
    "SequenceRegressed",
    "StreamChanged",
    "StreamImmutable",
    "StreamRefused",
    "StreamTypeMismatch",
    "StreamsFull",
    "TopicEnded",
    "TypeNotAllowed",
    "Unauthorised",
    "Unavailable",
]


class FastsseError(Exception):
    """The base of all errors that this package raises."""


class BadRequest(FastsseError):
    """A fault of the caller; nothing has changed.

    `field` is the name of the input (`topic`, `id`, …). `detail` is one sentence about what is
    allowed. It may be sent to the caller, because it contains only what the caller sent.
    """

    status: ClassVar[int] = 400
    #: More members of the problem.
    members: Mapping[str, object] = {}

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.detail = detail


class InvalidEvent(BadRequest):
    """An event that can't be published."""

    #: The reason of the publish in the metrics; None: it is not counted there.
    counted_as: ClassVar[PublishReason | None] = None


class EventTooLarge(InvalidEvent):
    """An event with more data than `max_event` allows, in bytes. Becomes a 413."""

    status: ClassVar[int] = 413

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            "data", f"must be at most {limit_bytes} bytes (max_event); got {size_bytes}"
        )


class Conflict(FastsseError):
    """A publish that the state of its topics forbids; nothing has changed, and the same publish
    can't succeed while the state lasts. `detail` as in Unauthorised."""

    status: ClassVar[int] = 409
    reason: ClassVar[str] = "conflict"

    def __init__(self, topic: str, detail: str, *more: str) -> None:
        super().__init__(detail)
        self.topic = topic
        self.detail = detail
        #: What another process makes the same error of.
        self.made_of: tuple[str, ...] = (topic, *more)


class TopicEnded(Conflict):
    """A publish to a topic that has ended. Becomes a 409."""

    reason: ClassVar[str] = "ended"

    def __init__(self, topic: str) -> None:
        super().__init__(topic, f"The topic {topic} has ended; nothing was published.")


class PreconditionFailed(Conflict):
    """A publish that expected another newest event of its topic. Becomes a 412. `current` is the
    id of the newest; empty: none is kept."""

    status: ClassVar[int] = 412
    reason: ClassVar[str] = "expect"

    def __init__(self, topic: str, current: str) -> None:
        newest = f"its newest event is {current}" if current else "no event of it is kept"
        super().__init__(topic, f"The topic {topic} is not as expected: {newest}.", current)
        self.current = current


class KeyReused(Conflict):
    """A request with the key of another request. Becomes a 422."""

    status: ClassVar[int] = 422
    reason: ClassVar[str] = "key_reused"

    def __init__(self, topic: str) -> None:
        super().__init__(topic, "The Idempotency-Key was used with another request.")


class ProducerFenced(Conflict):
    """An append of a producer that has begun a later epoch. Becomes a 403. `epoch` is that one."""

    status: ClassVar[int] = 403
    reason: ClassVar[str] = "producer_fenced"

    def __init__(self, topic: str, epoch: str) -> None:
        super().__init__(topic, f"The producer has begun epoch {epoch}.", epoch)
        self.epoch = int(epoch)


class SequenceGap(Conflict):
    """An append of a producer of which appends before it are missing. Becomes a 409. `epoch` is the
    known one; None: the producer is new."""

    reason: ClassVar[str] = "sequence_gap"

    def __init__(self, topic: str, expected: str, received: str, epoch: str) -> None:
        detail = f"The producer's next sequence number is {expected}, not {received}."
        super().__init__(topic, detail, expected, received, epoch)
        self.expected = int(expected)
        self.received = int(received)
        self.epoch = int(epoch) if epoch else None


class NotKept(FastsseError):
    """What is to be deleted is not kept: it never was, was evicted, or was deleted. Becomes a 404.
    `detail` as in Unauthorised."""

    status: ClassVar[int] = 404

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field
        self.detail = detail


class StreamChanged(Conflict):
    """A durable stream was created, deleted or forked meanwhile: what was asked is to be decided
    again."""

    reason: ClassVar[str] = "stream_changed"

    def __init__(self, topic: str) -> None:
        super().__init__(topic, f"The stream {topic} has changed meanwhile.")


class AlreadyTaken(Conflict):
    """A delayed event was published or cancelled by another node."""

    reason: ClassVar[str] = "taken"

    def __init__(self, topic: str) -> None:
        super().__init__(topic, "The delayed event was published or cancelled meanwhile.")


class SequenceRegressed(Conflict):
    """An append to a durable stream whose `Stream-Seq` is not above the last one. Becomes a 409."""

    reason: ClassVar[str] = "stream_seq"

    def __init__(self, topic: str) -> None:
        super().__init__(topic, f"The Stream-Seq is not above the last one of the stream {topic}.")


class StreamTypeMismatch(Conflict):
    """An event that can't be content of a durable stream. Becomes a 422."""

    status: ClassVar[int] = 422
    reason: ClassVar[str] = "stream_type"

    def __init__(self, topic: str, content_type: str) -> None:
        detail = f"The topic {topic} is a stream of {content_type}; the event's data is not."
        super().__init__(topic, detail, content_type)


class StreamImmutable(Conflict):
    """A deletion of content of a durable stream, or such content that would expire: it never
    changes. Becomes a 409. `topic` is the stream."""

    reason: ClassVar[str] = "stream_immutable"

    def __init__(self, topic: str) -> None:
        detail = (
            f"Content of the durable stream {topic} can't be deleted by itself, and does not"
            " expire: delete the stream as a whole."
        )
        super().__init__(topic, detail)


class StreamsFull(Conflict):
    """Durable streams take as much as `streams_total` allows. Becomes a 507."""

    status: ClassVar[int] = 507
    reason: ClassVar[str] = "streams_full"

    def __init__(self, topic: str) -> None:
        super().__init__(topic, "All streams together have reached streams_total.")


class TypeNotAllowed(InvalidEvent):
    """An event whose type the rule of a topic does not allow."""

    counted_as: ClassVar[PublishReason | None] = "type"

    def __init__(self, topic: str) -> None:
        super().__init__("event", f"this type is not allowed on topic {topic}")


class SchemaMismatch(InvalidEvent):
    """An event whose data does not match the schema of a topic. Becomes a 422.

    `pointer` (RFC 6901) says where in the data; `reason` contains no value of it.
    """

    status: ClassVar[int] = 422
    counted_as: ClassVar[PublishReason | None] = "schema"

    def __init__(self, topic: str, pointer: str, reason: str) -> None:
        where = f" at {pointer}" if pointer else ""
        super().__init__("data", f"does not match the schema of topic {topic}{where}: {reason}")
        self.members = {"pointer": pointer, "topic": topic}


class InvalidSubscription(BadRequest):
    """A subscription that can't be opened."""


class Unavailable(FastsseError):
    """A publish, or another request, was refused as a whole; it may succeed after `retry_after_s`.
    Becomes a 503 with `Retry-After`."""

    def __init__(self, reason: UnavailableReason, retry_after_s: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


class RateExceeded(Unavailable):
    """A topic gets more events than its rule allows (`max_publish_rate`). Becomes a 429 with
    `Retry-After`."""

    def __init__(self, topic: str, rate: int, retry_after_s: int) -> None:
        super().__init__("rate", retry_after_s)
        self.topic = topic
        self.rate = rate


class InterceptorFailed(FastsseError):
    """An interceptor failed, so the publish was refused as a whole. Becomes a 500.

    `interceptor` is its name.
    """

    def __init__(self, interceptor: str) -> None:
        super().__init__(f"The interceptor {interceptor} failed; nothing was published.")
        self.interceptor = interceptor


class StreamRefused(FastsseError):
    """A subscriber was refused; the caller still owns the socket.

    With the reason `over` its topics have ended and it has everything, so the answer is 204.
    Otherwise the answer is never an error status, because that would stop an EventSource
    permanently (WHATWG HTML 9.2.3, "fail the connection").
    """

    def __init__(self, reason: StreamReason) -> None:
        super().__init__(reason)
        self.reason = reason


class Unauthorised(FastsseError):
    """The client is not authenticated: it has no token or an invalid one. Becomes a 401.

    `detail` is one sentence that says why. It may be sent and logged, because it contains no part
    of a token or key.
    """

    status: Final = 401

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Forbidden(FastsseError):
    """The client is authenticated but not allowed to do this. Becomes a 403. `detail` as in
    Unauthorised."""

    status: Final = 403

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail
