"""Streams: sockets that are opened, sent to, and closed.

A stream is a number here, its handle. Python has an object for it only during its replay, and a
few numbers if it has a token. Only `channels`, `streams` and `resume` command the sender.

Over 400 lines: it is the one list of what can be done with a stream.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fastsse._core import QUEUE_MAX, REASON_ENDED, REASONS, Frame, Sender, raw_frame
from fastsse._seal import SealedSocket
from fastsse.auth.renewal import Held
from fastsse.auth.rights import ANONYMOUS, Claims, Rights, is_named
from fastsse.backbone import Backbone
from fastsse.errors import StreamRefused
from fastsse.hub.channels import Channel, Channels
from fastsse.hub.connections import Connections, Visitor
from fastsse.hub.erasing import EventLookup
from fastsse.hub.history import Erased, History
from fastsse.hub.polls import Polls
from fastsse.hub.resume.finished import FinishedStreams
from fastsse.hub.resume.options import ReplayOptions
from fastsse.hub.resume.pages import Pages, newest_shown_place
from fastsse.hub.resume.preamble import (
    Head,
    PendingStream,
    ReplayingStream,
    first_block,
    first_frame,
)
from fastsse.hub.resume.replayer import Replayer
from fastsse.hub.resume.store_queries import StoreQueries
from fastsse.hub.tails import TailSubscription
from fastsse.hub.token_table import TokenRow, TokenTable
from fastsse.hub.views import view_of
from fastsse.log import get_logger
from fastsse.refusal_reasons import StreamReason
from fastsse.subscriptions import Dialect, Subscription

if TYPE_CHECKING:
    from fastsse._core import InspectedRow

__all__ = ["ClosedStream", "Head", "Inspected", "Streams", "may_be_stream_id"]

log = get_logger("hub")
# Distinct response heads that are cached. They differ by coding and CORS origin, so there are few.
OPENINGS_MAX = 64
# A first frame of a tail that is kept, for the next one, has at most so much behind its head.
SHARED_BYTES_MAX: Final = 1024
_REVOKED: Final = REASONS.index("revoked")
_NO_OPTIONS: Final[dict[str, Any]] = {}
_STREAM_ID: Final = re.compile(rb"[0-9a-f]{32}")


Inspected = Callable[[Sequence["InspectedRow"], int], None]
"""Takes figures of streams, and the slot to go on from."""


class ClosedStream(NamedTuple):
    """Facts of an ended stream, for the access log."""

    handle: int
    selectors: tuple[str, ...]
    reason: str
    duration_s: float
    events: int
    bytes: int


class Streams:
    """All streams of one worker. Loop thread only.

    Arguments:
        sender: owns the sockets; only channels, streams and replays may command it.
        channels: the channels of all streams.
        history: events in memory.
        backbone: reads older events.
        options: how streams open and replay.
        now_ms: the clock, in unix milliseconds.

    Attributes:
        on_closed: called with each stream that ended.
        wake: call it after the last of several `open`.
        draining: new streams are refused.
    """

    def __init__(
        self,
        sender: Sender,
        channels: Channels,
        history: History,
        backbone: Backbone,
        *,
        options: ReplayOptions,
        now_ms: Callable[[], int],
    ) -> None:
        self.on_closed: Callable[[ClosedStream], None] = lambda stream: None
        self.wake: Final = sender.wake
        self.draining = False
        self._is_stopped = False
        self._sender = sender
        self._channels = channels
        self._history = history
        self._retry_ms = options.retry_ms
        self._clean_end = options.clean_end
        self._now_ms = now_ms
        queries = StoreQueries(backbone, options.bounds.max_replays)
        #: Finds out whether the stream that a client resumes was over.
        self.finished: Final = FinishedStreams(history, queries)
        #: Finds events that are to be deleted.
        self.lookup: Final = EventLookup(history, queries)
        pages = Pages(history, queries, options.bounds.page_bytes)
        self._replayer = Replayer(sender, history, queries, pages, options)
        #: Answers requests for pages of history.
        self.polls: Final = Polls(channels, history, queries, pages, self._replayer.ends)
        self._replayer.on_lost = self.polls.look_again
        history.on_erased = self._on_erased
        self._replayer.on_dropped = self._on_dropped
        self._replayer.on_searching = lambda: channels.on_unready()
        self._tokens = TokenTable()
        self._openings: dict[tuple[bytes, bool, int, Dialect], Frame] = {}
        self._openings_place = -1
        # The first frame of the last tail, with what it was made of.
        self._shared_first: tuple[tuple[bytes, bytes, bool], Frame] | None = None
        #: Facts of open streams for operators; None: they are not kept.
        self.connections: Connections | None = None
        #: Whether tokens can be renewed and revoked. If not, a stream whose rights have no end
        #: needs no rows for them.
        self.renews = True
        self._inspecting: dict[int, Inspected] = {}

    @property
    def replays(self) -> int:
        """Streams that are being replayed to now."""
        return len(self._replayer)

    def watch_replays(self, on_page: Callable[[int, int], None]) -> None:
        """Calls `on_page` with each page of history that a stream is sent: the handle, and the
        bytes of the page. The first call for a stream may come within `open`."""
        self._replayer.on_page = on_page

    @property
    def replays_failed(self) -> int:
        """Number of streams that ended because the backbone could not be read, or because their gap
        event could not be sent."""
        return self._replayer.failed

    @property
    def repeated_resumes(self) -> int:
        """Number of streams of clients that resume after the same id repeatedly."""
        return self._replayer.returns.repeated

    @property
    def gaps(self) -> Counter[str]:
        """Number of gap events by reason; one for all streams counts once."""
        return self._replayer.gaps

    def room(self) -> int:
        """Number of free rows in the table of streams."""
        return self._sender.free_slot_count

    @property
    def sealed(self) -> int:
        """Number of streams whose TLS records the sender seals."""
        return self._sender.sealed_count

    def has_room(self) -> bool:
        """Whether `open` would accept one more stream."""
        return self.objection() is None

    def objection(self) -> StreamReason | None:
        """The reason why `open` would refuse any stream now; None: it would not."""
        if self.draining:
            return "draining"
        if self._sender.pending_commands >= QUEUE_MAX:
            return "queue"
        return None if self._sender.free_slot_count > 0 else "full"

    def open(
        self,
        subscription: Subscription,
        head: Head,
        chunked: bool,
        fd: int,
        rights: Rights | None = None,
        *,
        client: str = "",
        visitor: Visitor = Visitor(),  # noqa: B008 - immutable
        door_number: int = 0,
    ) -> int:
        """Opens a stream on a socket and returns its handle, which is valid until it is closed.

        When this returns, the sender owns the descriptor, or the replayer until it attaches the
        stream. When this raises, the caller owns it, and the stream does not exist. So an error
        after the descriptor was given away is not raised: it is logged and ends the stream.

        Arguments:
            subscription: which events are sent, and from where on.
            head: the response head, sent before anything else.
            chunked: whether the body has HTTP/1.1 chunks.
            fd: a connected socket.
            rights: those of the token; None: public events only, without an end.
            client: the client's address, for the log.
            visitor: facts of the client, for operators.
            door_number: the TLS door's number of a connection, see `ask_door`; else 0.

        Raises StreamRefused, or what channels, replays and the sender raise. A few microseconds at
        the head, O(page) for a replay from memory; one that needs the backbone may open later.
        """
        self._check_room()
        handle = self._sender.allocate()
        channel: Channel | None = None
        try:
            channel = self._join(subscription, rights)
            options = _options(self._claims(rights), subscription.dialect, door_number)
            is_at_head = subscription.cursor.kind == "head" and not subscription.last_each
            if isinstance(subscription, TailSubscription):
                self._open_tail(handle, fd, channel, (head, chunked), subscription, options)
            elif is_at_head and channel.waiting is None:
                first = (self._at_head(head, chunked, subscription, channel),)
                self._sender.attach(handle, fd, channel.number, chunked, True, first, **options)
                self._replayer.ends.look(channel)
            else:
                opening = PendingStream(fd, head, chunked, options, client)
                self._replayer.begin(ReplayingStream(handle, channel, subscription, opening))
        except BaseException:
            self._sender.release(handle)
            if channel is not None:
                self._channels.leave(channel)
            raise
        if rights is not None and "claims" in options:
            self._note_bearer(
                handle, channel.number, rights, subscription.dialect.has_control_events
            )
        if self.connections is not None:
            self.connections.opened(handle, channel.number, visitor, rights)
        return handle

    def _check_room(self) -> None:
        objection = self.objection()
        if objection is not None:
            raise StreamRefused(objection)

    def ask_door(self, release: Callable[[int, int], object]) -> None:
        """Has `release` called with the door's number and the handle of each such stream. It sends
        nothing until `seal` or `go_on_plain`."""
        self._sender.on_waiting = release

    def seal(self, handle: int, sealed: SealedSocket) -> bool:
        """The sender seals the TLS records of a stream from now on. False if it has ended; then
        `sealed` stays the caller's."""
        return not self._is_stopped and self._sender.seal(handle, sealed)

    def go_on_plain(self, handle: int) -> bool:
        """The records of a stream stay the door's. False if it has ended."""
        return not self._is_stopped and self._sender.go_on_plain(handle)

    def _claims(self, rights: Rights | None) -> Claims | None:
        """What is kept of the rights of a stream; None: nothing in it can end the stream."""
        if rights is None or rights is ANONYMOUS:
            return None
        # A token without other claims can still be older than a revocation.
        return rights.claims if self.renews or rights.claims[0] else None

    def _join(self, subscription: Subscription, rights: Rights | None) -> Channel:
        """The channel of all equal subscriptions. The stream must leave it later."""
        return self._channels.join(
            subscription.selectors,
            rights,
            is_quiet=not subscription.dialect.has_control_events,
            view=view_of(subscription),
        )

    def _open_tail(
        self,
        handle: int,
        fd: int,
        channel: Channel,
        answer: tuple[Head, bool],
        subscription: TailSubscription,
        options: dict[str, Any],
    ) -> None:
        head, chunked = answer
        assert isinstance(head, bytes)
        block, is_over = subscription.begin()
        first = self._first_of_tail(head, block, chunked)
        self._sender.attach(handle, fd, channel.number, chunked, True, (first,), **options)
        if is_over:
            self._sender.close(handle, REASON_ENDED, None, True)

    def _first_of_tail(self, head: bytes, block: bytes, chunked: bool) -> Frame:
        """The first frame of a tail; tails that open one after the other mostly share it."""
        asked = head, block, chunked
        if self._shared_first is not None and self._shared_first[0] == asked:
            return self._shared_first[1]
        first = first_frame(head, block, chunked)
        if len(block) <= SHARED_BYTES_MAX:
            self._shared_first = asked, first
        return first

    def _note_bearer(self, handle: int, channel: int, rights: Rights, is_notified: bool) -> None:
        """Notes the token of a stream. The descriptor was given away, so nothing is raised."""
        try:
            expires_ms, subject_hash, *_ = rights.claims
            self._tokens.add(handle, TokenRow(channel, subject_hash, expires_ms, is_notified))
        except Exception:
            log.exception("A stream could not be opened.")
            self.close(handle, REASON_ENDED)

    def close(self, handle: int, reason: int, farewell: Frame | None = None) -> bool:
        """Ends a stream at its next frame boundary; False if it has ended already.

        Arguments:
            reason: an index into the core's REASONS.
            farewell: sent before the end, if no frame is partly sent.
        """
        if self._is_stopped:
            return False
        self._replayer.stop(handle)
        return self._sender.close(handle, reason, farewell, self._clean_end)

    def drain(self, window_s: float) -> None:
        """Closes every stream, spread over `window_s` seconds, and refuses new ones."""
        self.draining = True
        self.polls.answer_all()
        self._replayer.stop_unattached()
        self._sender.drain(round(window_s * 1000))

    def abandon(self) -> None:
        """Closes the sockets that the sender does not own yet, and sends no more commands, because
        the process ends. Later calls find no stream."""
        self._is_stopped = True
        self._replayer.abandon()

    def read_notices(self) -> None:
        """Handles the notices of the sender. Call it when its `notice_fd` is readable."""
        closed = []
        for notice in self._sender.take_notices():
            if notice[0] == "closed":
                closed.append(self._end(*notice[1:]))
            elif notice[0] == "expiring":
                self._notify_expiry(notice[1])
            elif notice[0] == "inspected":
                _, number, rows, next_slot = notice
                self._inspecting.pop(number)(rows, next_slot)
            else:
                self._replayer.on_page_sent(notice[1])
        self._replayer.go_on()
        # Last, so that everything else is done when a listener fails.
        for stream in closed:
            self.on_closed(stream)

    def sweep(self) -> bool:
        """Continues waiting replays. Call it about once a second, and soon again when it returns
        True."""
        self._replayer.go_on()
        return self._replayer.search()

    def _on_erased(self, erased: Erased) -> None:
        self._replayer.on_erased(erased)
        self.polls.on_erased()

    def report_loss(self, place: int) -> None:
        """Sends every stream a gap event: events up to a place may be missing."""
        self._replayer.report_loss(place)

    # -- streams by name, and holders of tokens ---------------------------------------------------

    def id_of(self, handle: int) -> bytes:
        """The public id of a stream, which can't be guessed. Raises ValueError if it has ended."""
        return self._sender.stream_id(handle)

    def name_of(self, handle: int) -> str:
        """As `id_of`, as text, also for a stream that has ended."""
        return self._sender.stream_id(handle, True).decode()

    def inspect(self, handles: Sequence[int], done: Inspected) -> bool:
        """Calls `done` soon with the figures of at most INSPECTED_ROWS_MAX streams. Returns False
        if too many such requests are pending, or if the sender ends."""
        return self._started(0 if self._is_stopped else self._sender.inspect(handles), done)

    def inspect_blocked(self, first_slot: int, done: Inspected) -> bool:
        """As `inspect`, for the streams with a full socket, from a slot on."""
        number = 0 if self._is_stopped else self._sender.inspect_blocked(first_slot)
        return self._started(number, done)

    def _started(self, number: int, done: Inspected) -> bool:
        if number:
            self._inspecting[number] = done
        return bool(number)

    def find(self, stream_id: bytes) -> int:
        """The handle of the stream with a public id; 0: there is none."""
        return 0 if self._is_stopped else self._sender.find_stream(stream_id)

    def pong(self, stream_id: bytes) -> bool:
        """Notes that the client of a stream answered a ping; False: there is no such stream."""
        handle = self.find(stream_id)
        return handle != 0 and self._sender.pong(handle)

    def held_by(self, handle: int) -> Held | None:
        """The row of a stream's token; None if it has ended or has no token."""
        bearer = self._tokens.find(handle)
        if bearer is None:
            return None
        rights = self._channels[bearer.channel].rights
        return Held(bearer.subject_hash, () if rights is None else rights.subscribe)

    def send_direct(self, handle: int, frame: Frame) -> bool:
        """Sends a frame to one stream only; False if it has ended."""
        return not self._is_stopped and self._sender.send_direct(handle, frame)

    def when_live(self, handle: int, done: Callable[[], None]) -> bool:
        """Calls `done` when the replay of a stream is complete, or the stream has ended. Returns
        False if it is live already."""
        return self._replayer.when_done(handle, done)

    def renew(self, handle: int, rights: Rights) -> bool:
        """Gives a stream the end of a newer token with the same grants; False if it has ended."""
        if self._is_stopped or self._tokens.find(handle) is None:
            return False
        if not self._sender.renew(handle, *rights.renewal):
            return False
        self._tokens.renew(handle, rights.claims[0])
        return True

    def revoke(self, subject_hash: int, token_hash: int, issued_before_s: int) -> None:
        """Ends the streams whose tokens meet every condition that is not 0, within a second."""
        if self._is_stopped:
            return
        self._sender.revoke(subject_hash, token_hash, issued_before_s)
        # The sender receives these streams later, so the revocation would miss them.
        for handle, claims in self._replayer.unattached_claims():
            if is_named(claims, subject_hash, token_hash, issued_before_s):
                self.close(handle, _REVOKED)

    def _notify_expiry(self, handle: int) -> None:
        bearer = self._tokens.find(handle)
        if bearer is None or not bearer.is_notified:
            return
        left_ms = max(0, bearer.expires_ms - self._now_ms())
        data = {"stream": self.id_of(handle).decode(), "expires_in_s": left_ms / 1000}
        text = json.dumps(data, separators=(",", ":")).encode()
        self._sender.send_direct(handle, raw_frame(b"event: fastsse.expiring\ndata: %b\n\n" % text))

    # -- openings and ends ------------------------------------------------------------------------

    def _at_head(
        self, head: Head, chunked: bool, subscription: Subscription, channel: Channel
    ) -> Frame:
        """The first bytes of a stream that begins at the head; cached until the next publish."""
        if self._history.head != self._openings_place or len(self._openings) >= OPENINGS_MAX:
            self._openings.clear()
            self._openings_place = self._history.head
        place = newest_shown_place(self._history, channel)
        if not isinstance(head, bytes):
            head = head(None)
        key = (head, chunked, place, subscription.dialect)
        frame = self._openings.get(key)
        if frame is None:
            block = first_block(subscription.dialect, self._retry_ms, place)
            frame = self._openings[key] = first_frame(head, block, chunked)
        return frame

    def _end(
        self, handle: int, number: int, reason: str, duration_s: float, events: int, size: int
    ) -> ClosedStream:
        self._replayer.on_closed(handle)
        self._tokens.drop(handle)
        self._drop_connection(handle)
        self._replayer.returns.ended(handle, reason)
        channel = self._channels[number]
        self._channels.leave(channel)
        return ClosedStream(handle, channel.selectors, reason, duration_s, events, size)

    def _drop_connection(self, handle: int) -> None:
        if self.connections is not None:
            self.connections.closed(handle)

    def _on_dropped(self, one: ReplayingStream) -> None:
        self._sender.release(one.handle)
        self._tokens.drop(one.handle)
        self._drop_connection(one.handle)
        self._channels.leave(one.channel)
        selectors = one.channel.selectors
        self.on_closed(ClosedStream(one.handle, selectors, REASONS[REASON_ENDED], 0.0, 0, 0))


def may_be_stream_id(text: bytes) -> bool:
    """Whether a text has the form of a stream's public id, of any worker."""
    return _STREAM_ID.fullmatch(text) is not None


def _options(claims: Claims | None, dialect: Dialect, door_number: int) -> dict[str, Any]:
    """The arguments of `Sender.attach` that not every stream has."""
    is_usual = claims is None and not dialect.pings and not dialect.heartbeat_s
    if is_usual and not dialect.pad_bytes and not door_number:
        return _NO_OPTIONS
    options: dict[str, Any] = {}
    if door_number:
        options["door_number"] = door_number
    if claims is not None:
        options["claims"] = claims
    if dialect.pings:
        options["pings"] = True
    if dialect.heartbeat_s or dialect.pad_bytes:
        options["heartbeat_s"] = dialect.heartbeat_s
        options["pad_bytes"] = dialect.pad_bytes
    return options
