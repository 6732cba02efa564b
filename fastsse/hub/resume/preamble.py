"""Streams before they are live: what is known of each, and the first bytes of its response."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from fastsse._core import Frame, raw_frame, wire_frame
from fastsse.hub.channels import Channel
from fastsse.hub.resume.cursor import GapEvent, ReplayStart
from fastsse.hub.resume.snapshots import Snapshot
from fastsse.positions import format_position
from fastsse.subscriptions import Cursor, Dialect, InitialId, Subscription

__all__ = [
    "Head",
    "PendingStream",
    "ReplayingStream",
    "first_block",
    "first_frame",
    "first_frames",
    "last_event_id",
    "last_frames",
    "over_head",
]

_COMMENT: Final = b":\n"
# What follows an `id:` line. `line` adds nothing: the block goes on with the first event.
_AFTER_ID: Final[dict[InitialId, bytes]] = {"true": b"\n", "line": b"", "data": b"data:\n\n"}

_OF_STREAMS: Final = (
    b"content-type:",
    b"transfer-encoding:",
    b"connection:",
    b"x-accel-buffering:",
)

Head = bytes | Callable[[bytes | None], bytes]
"""A response head, blank line included; or what makes it, once it is known from where the stream
goes on: the id that was asked for when all after it follows, else `earliest`, and None for a
stream that asked for nothing (which is Mercure's `Last-Event-ID`)."""


class PendingStream(NamedTuple):
    """A stream that has not been given to the sender: see `Streams.open`. `options` are what
    `Sender.attach` takes beyond what every stream has, `client` is whose it is, for the log."""

    fd: int
    head: Head
    chunked: bool
    options: dict[str, Any]
    client: str = ""


class ReplayingStream:
    """A stream on its way to live: asks for its place and pages, as a
    `store_queries.QueryWaiter`."""

    __slots__ = (
        "begun",
        "channel",
        "ended",
        "gap",
        "handle",
        "opening",
        "place",
        "snapshot",
        "subscription",
        "then",
        "wants_snapshot",
    )

    def __init__(
        self, handle: int, channel: Channel, subscription: Subscription, opening: PendingStream
    ) -> None:
        self.handle = handle
        self.channel = channel
        self.subscription = subscription
        self.opening: PendingStream | None = opening  # Until it is attached.
        self.begun: ReplayStart | None = None  # Until its cursor is placed.
        self.place: int | None = None  # Where it begins; None until its first page says it.
        self.gap: GapEvent | None = None  # To send before the next page.
        self.wants_snapshot = False  # Its next page is the first of a snapshot.
        self.snapshot: Snapshot | None = None  # While some of it is still to be sent.
        self.ended = False
        self.then: Callable[[Any], None] | None = None

    def on_answer(self, outcome: Any) -> None:
        """What was asked for is known."""
        assert self.then is not None
        self.then(outcome)


def first_block(
    dialect: Dialect, retry_ms: int, place: int | None, gap: GapEvent | None = None
) -> bytes:
    """What stands before a stream's events: comments, `retry:`, and where it goes on from.

    Arguments:
        place: named as the dialect says; None where it is not known.
        gap: an event that names the place instead.
    """
    block = b": fastsse\nretry: %d\n" % retry_ms if dialect.opens else _COMMENT
    if dialect.notes or dialect.pad_bytes:
        block += dialect.notes + _padding(dialect.pad_bytes)
    if gap is not None:
        return block + gap.encode()
    if place is None or dialect.initial_id == "false":
        return block
    return b"%bid: %b\n%b" % (block, format_position(place), _AFTER_ID[dialect.initial_id])


def _padding(size_bytes: int) -> bytes:
    """A comment line of this length; nothing for 0."""
    return b":%b\n" % (b" " * (size_bytes - 2)) if size_bytes else b""


def first_frame(head: bytes, block: bytes, chunked: bool) -> Frame:
    """The response head and the opening block, framed for the client's coding."""
    return wire_frame(b"%b%x\r\n%b\r\n" % (head, len(block), block) if chunked else head + block)


def first_frames(
    one: ReplayingStream,
    retry_ms: int,
    reported: GapEvent | None,
    page: Frame | None,
    *,
    is_last: bool,
) -> list[Frame]:
    """What the sender is given with a stream that begins: head, opening block and a page.

    Arguments:
        reported: the gap event in the opening block, instead of the place; None: no gap event.
        page: None where nothing is replayed, or not yet.
        is_last: whether the stream is live after this.
    """
    opening, subscription = one.opening, one.subscription
    assert opening is not None
    head = opening.head
    if not isinstance(head, bytes):
        head = head(last_event_id(subscription.cursor, one.gap))
    block = first_block(subscription.dialect, retry_ms, one.place, reported)
    if page is not None:
        return [first_frame(head, block, opening.chunked), page]
    if is_last:
        return [first_frame(head, block, opening.chunked)]
    return [wire_frame(head), raw_frame(block)]


def last_frames(one: ReplayingStream, retry_ms: int) -> list[Frame]:
    """The frames of a stream that ends before it began. Its client reconnects with the same
    request."""
    assert one.opening is not None
    head, subscription = one.opening.head, one.subscription
    if not isinstance(head, bytes):
        head = head(last_event_id(subscription.cursor))
    return [wire_frame(head), raw_frame(first_block(subscription.dialect, retry_ms, None))]


def over_head(head: Head) -> bytes:
    """A whole answer 204 with the header lines of a stream's head that still hold."""
    if not isinstance(head, bytes):
        head = head(None)
    lines = head.split(b"\r\n")[1:-2]
    kept = [line for line in lines if not line.lower().startswith(_OF_STREAMS)]
    return b"\r\n".join((b"HTTP/1.1 204 No Content", *kept, b"Connection: close", b"", b""))


def last_event_id(cursor: Cursor, gap: GapEvent | None = None) -> bytes | None:
    """What a `Head` names."""
    if cursor.kind == "head":
        return None
    return cursor.text if cursor.kind == "after" and gap is None else b"earliest"
