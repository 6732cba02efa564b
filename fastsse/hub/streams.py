"""Streams: sockets that are opened, replayed to, told things, and closed.

A stream is a number here, its handle; only while it replays, or bears a token, does Python keep
anything about it. With `channels`, the only module that commands the sender.

A stream that resumes goes through these steps, within the call when memory knows all, else one
after the other as the backbone answers:

    place its cursor ─▶ read its first page ─▶ attach it ─▶ page by page ─▶ live
                        (told what is missing, before anything else)

Until it is attached its socket stands here: the response head and the opening block depend on
what the first page says. Such a stream has a row of the table, so there are not more of them.
"""

import json
import os
import random
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from fastsse._core import QUEUE_LIMIT, REASON_ENDED, REASONS, Frame, Sender, raw_frame, wire_frame
from fastsse.auth.rights import Rights
from fastsse.backbone import Backbone, Stretch
from fastsse.errors import FastsseError, TurnedAway
from fastsse.hub.channels import Channel, Channels
from fastsse.hub.history import PAGE_BYTES, History
from fastsse.hub.pages import JoinedPage, Pages
from fastsse.hub.replay import Begun, Gap, after_gap, begin, begin_at, opening_block
from fastsse.hub.turns import UNKNOWN_YET, Turns
from fastsse.positions import parse_id
from fastsse.subscriptions import ANY, Subscription

__all__ = ["ClosedStream", "Head", "Streams"]

# Heads differ by what the request allows (coding, CORS origin); more than these are a flood.
OPENINGS_MAX = 64
MAX_REPLAYS: Final = 64
EVERYTHING: Final = (ANY,)
COMMENT: Final = b":\n"
_NO_OPTIONS: Final[dict[str, Any]] = {}

Head = bytes | Callable[[bytes | None], bytes]
"""A response head, blank line included; or what makes it, once it is known from where the stream
goes on: the id that was asked for when all after it follows, else `earliest`, and None for a
stream that asked for nothing (which is Mercure's `Last-Event-ID`)."""


class ClosedStream(NamedTuple):
    """What is left of a stream: for the access log."""

    handle: int
    selectors: tuple[str, ...]
    reason: str
    duration_s: float
    events: int
    bytes: int


class _Opening(NamedTuple):
    """A stream that has not been given to the sender."""

    fd: int
    head: Head
    chunked: bool
    options: dict[str, Any]


class _Replaying:
    """A stream on its way to live. Asks for its places and pages (`turns.Asker`)."""

    __slots__ = ("begun", "channel", "ended", "gap", "handle", "opening", "subscription", "then")

    def __init__(
        self, handle: int, channel: Channel, subscription: Subscription, opening: _Opening
    ) -> None:
        self.handle = handle
        self.channel = channel
        self.subscription = subscription
        self.opening: _Opening | None = opening  # Until it is attached.
        self.begun: Begun | None = None
        self.gap: Gap | None = None  # To tell before the next page.
        self.ended = False
        self.then: Callable[[_Replaying, Any], None] | None = None

    def answered(self, outcome: Any) -> None:
        """What was asked for is known."""
        assert self.then is not None
        self.then(self, outcome)


class Streams:
    """All streams of one worker. Loop thread only.

    Arguments:
        sender: owns the sockets; nobody but channels and streams may command it.
        channels: what streams join.
        history: what is replayed from memory.
        backbone: what lies before.
        retry_ms: the reconnection time that streams open with.
        replay_memory_bytes: while the core holds more than this beside the history, replays wait
            for their next page, so that whoever catches up never makes publishers wait.
        page_bytes: the bound on one page of a replay.
        max_replays: how many reads of the backbone may be under way; others wait their turn.
        now_ms: unix milliseconds.

    Attributes:
        on_opened: called with each stream that opens, if not None: its handle, what it asked
            for, its rights, and the client's name as `open` got it.
        on_closed: called with each stream that ended.
        draining: newcomers are turned away.
        gaps: gap events told, by reason; to all streams at once counts once.
        replays_total: streams that began anywhere but at the head.
        replays_failed: those that ended because the backbone could not be read.
    """

    def __init__(
        self,
        sender: Sender,
        channels: Channels,
        history: History,
        backbone: Backbone,
        *,
        retry_ms: int,
        replay_memory_bytes: int,
        page_bytes: int = PAGE_BYTES,
        max_replays: int = MAX_REPLAYS,
        now_ms: Callable[[], int],
    ) -> None:
        self.on_opened: Callable[[int, Subscription, Rights | None, str], None] | None = None
        self.on_closed: Callable[[ClosedStream], None] = lambda stream: None
        self.draining = False
        self.gaps: Counter[str] = Counter()
        self.replays_total = 0
        self.replays_failed = 0
        self.wake: Final = channels.wake
        self._sender = sender
        self._channels = channels
        self._history = history
        self._retry_ms = retry_ms
        self._replay_memory_bytes = replay_memory_bytes
        self._now_ms = now_ms
        self._turns = Turns(backbone, max_replays)
        self._pages = Pages(history, self._turns, page_bytes)
        self._replays: dict[int, _Replaying] = {}
        # Handles of replays that wait for memory, oldest first; those that end are taken out.
        self._waiting: OrderedDict[int, None] = OrderedDict()
        # What streams may do that bear a token, and whether they want to be told of its end.
        self._bearers: dict[int, tuple[Rights, bool]] = {}
        self._openings: dict[tuple[bytes, bool, bool, bool], Frame] = {}
        self._openings_place = -1

    @property
    def replays(self) -> int:
        """Streams that are being replayed to now."""
        return len(self._replays)

    def room(self) -> int:
        """Streams that the table has still rows for."""
        return self._sender.free_slot_count

    def has_room(self) -> bool:
        """Whether `open` would take one more stream."""
        return (
            not self.draining
            and self._sender.free_slot_count > 0
            and self._sender.pending_commands < QUEUE_LIMIT
        )

    def open(
        self,
        subscription: Subscription,
        head: Head,
        chunked: bool,
        fd: int,
        rights: Rights | None = None,
        *,
        client: str = "",
        pings: bool = False,
    ) -> int:
        """Opens a stream on a socket and returns its handle, by which it is known until closed.

        Arguments:
            subscription: what it gets, and from where on.
            head: the response head, sent before anything else.
            chunked: whether what follows the head is sent in HTTP/1.1 chunks.
            fd: a connected socket, the sender's from here on.
            rights: the bearer's; None gets public events only, and never expires.
            client: whose it is, for `on_opened`.
            pings: whether it gets visible pings, and has to answer them.

        Raises TurnedAway, and then the fd is still the caller's. Costs a few microseconds for a
        stream that begins at the head, O(page) for one that is replayed to from memory; one that
        needs the backbone may open later.
        """
        if self.draining:
            raise TurnedAway("draining")
        if self._sender.pending_commands >= QUEUE_LIMIT:
            raise TurnedAway("queue")
        handle = self._sender.allocate()
        if not handle:
            raise TurnedAway("full")
        channel: Channel | None = None
        try:
            channel = self._channels.join(subscription.selectors, rights)
            options = _NO_OPTIONS if rights is None and not pings else _options(rights, pings)
            if subscription.cursor.kind == "head":
                first = (self._at_head(head, chunked, subscription),)
                self._sender.attach(handle, fd, channel.number, chunked, True, first, **options)
            else:
                opening = _Opening(fd, head, chunked, options)
                self._begin(_Replaying(handle, channel, subscription, opening))
                self.replays_total += 1
        except BaseException:
            self._replays.pop(handle, None)
            self._sender.release(handle)
            if channel is not None:
                self._channels.leave(channel)
            raise
        if "claims" in options and rights is not None:
            self._bearers[handle] = rights, subscription.dialect.tells
        if self.on_opened is not None:
            self.on_opened(handle, subscription, rights, client)
        return handle

    def close(self, handle: int, reason: int, farewell: Frame | None = None) -> bool:
        """Ends a stream at its next frame boundary; False when it has ended already.

        Arguments:
            reason: an index into the core's REASONS.
            farewell: sent before the end, when the stream is not in the middle of something.
        """
        one = self._replays.pop(handle, None)
        if one is not None:
            self._stop_replaying(one)
        return self._sender.close(handle, reason, farewell)

    def drain(self, window_s: float) -> None:
        """Closes every stream, spread over a time, and turns newcomers away."""
        self.draining = True
        for one in list(self._replays.values()):
            if one.opening is not None:
                del self._replays[one.handle]
                self._stop_replaying(one)
        self._sender.drain(round(window_s * 1000))

    def abandon(self) -> None:
        """Closes the sockets that the sender was not given yet; for the end of everything."""
        for one in self._replays.values():
            one.ended = True
            if one.opening is not None:
                os.close(one.opening.fd)
        self._replays.clear()

    def read_notices(self) -> None:
        """Takes what the sender has to say; to be called when its `notice_fd` is readable."""
        closed = []
        for notice in self._sender.take_notices():
            if notice[0] == "closed":
                closed.append(self._end(*notice[1:]))
            elif notice[0] == "expiring":
                self._tell_expiry(notice[1])
            elif notice[1] in self._replays:
                self._waiting[notice[1]] = None
        self._go_on_waiting()
        # Last, so that nothing is left undone when a listener fails.
        for stream in closed:
            self.on_closed(stream)

    def sweep(self) -> None:
        """Has waiting replays go on; to be called about once a second."""
        self._go_on_waiting()

    def tell_lost(self, place: int) -> None:
        """Tells every stream that events up to a place may be missing, from which it goes on."""
        gap = Gap("lost", b"", place)
        self._pages.cache.clear()
        self._sender.announce(raw_frame(gap.encode()))
        self._count(gap)
        for one in self._replays.values():
            # Those that are not attached are not told yet: their first page does it.
            if one.opening is None and one.begun is not None:
                one.begun.replay.told_through = place

    # -- bearers of tokens ----------------------------------------------------------------------

    def rights_of(self, handle: int) -> Rights | None:
        """The rights of a stream's token; None for one that has ended, or bears none."""
        bearer = self._bearers.get(handle)
        return None if bearer is None else bearer[0]

    def renew(self, handle: int, rights: Rights) -> bool:
        """Gives a stream the end of a newer token of the same grants; False when it has ended."""
        bearer = self._bearers.get(handle)
        if bearer is None or not self._sender.renew(handle, *rights.renewal):
            return False
        self._bearers[handle] = rights, bearer[1]
        return True

    def revoke(self, subject_hash: int, token_hash: int, issued_before_s: int) -> None:
        """Ends the streams whose tokens meet every condition that is not 0, within a second."""
        self._sender.revoke(subject_hash, token_hash, issued_before_s)

    def pong(self, stream_id: bytes) -> bool:
        """A stream's page is there; False when no such stream is."""
        handle = self._sender.find_stream(stream_id)
        return handle != 0 and self._sender.pong(handle)

    def find(self, stream_id: bytes) -> int:
        """The handle of the stream with a public id; 0 when there is none."""
        return self._sender.find_stream(stream_id)

    def id_of(self, handle: int) -> bytes:
        """A stream's public id, which nobody can guess. Raises ValueError when it has ended."""
        return self._sender.stream_id(handle)

    def _tell_expiry(self, handle: int) -> None:
        bearer = self._bearers.get(handle)
        if bearer is None or not bearer[1]:
            return
        left_ms = max(0, bearer[0].claims[0] - self._now_ms())
        data = {"stream": self._sender.stream_id(handle).decode(), "expires_in_s": left_ms / 1000}
        text = json.dumps(data, separators=(",", ":")).encode()
        self._sender.tell(handle, raw_frame(b"event: fastsse.expiring\ndata: %b\n\n" % text))

    # -- the opening of streams -----------------------------------------------------------------

    def _at_head(self, head: Head, chunked: bool, subscription: Subscription) -> Frame:
        """The first bytes of a stream that begins at the head: the same for all until the next
        publish."""
        place = self._history.head
        if place != self._openings_place or len(self._openings) >= OPENINGS_MAX:
            self._openings.clear()
            self._openings_place = place
        if not isinstance(head, bytes):
            head = head(None)
        with_id, opens = subscription.initial_id, subscription.dialect.opens
        key = (head, chunked, with_id, opens)
        frame = self._openings.get(key)
        if frame is None:
            block = opening_block(self._retry_ms, place if with_id else None) if opens else COMMENT
            frame = self._openings[key] = _first_frame(head, block, chunked)
        return frame

    def _block(self, one: _Replaying, place: int | None, gap: Gap | None) -> bytes:
        dialect = one.subscription.dialect
        told = gap if dialect.tells else None
        if dialect.opens:
            return opening_block(
                self._retry_ms, place if one.subscription.initial_id else None, told
            )
        return COMMENT if told is None else COMMENT + told.encode()

    def _begin(self, one: _Replaying) -> None:
        """Places the cursor, and goes on."""
        cursor = one.subscription.cursor
        one.begun = begin(self._history, one.channel, cursor)
        if one.begun is not None:
            self._begun(one)
            return
        outcome = self._turns.seek(one.channel.selectors, cursor, one)
        if outcome is UNKNOWN_YET:
            self._wait_for(one, self._on_sought)
        else:
            self._on_sought(one, outcome)

    def _on_sought(self, one: _Replaying, place: int | FastsseError | None) -> None:
        """The backbone placed the cursor. An id of an event that may not be read stays unknown, so
        an id of the publisher's own is looked at first."""
        if isinstance(place, FastsseError):
            self._fail(one)
            return
        rights, cursor = one.channel.rights, one.subscription.cursor
        reads_all = rights is not None and rights.subscribe == EVERYTHING
        is_own_id = cursor.kind == "after" and parse_id(cursor.text) is None
        if place is None or reads_all or not is_own_id:
            self._on_checked(one, place)
            return

        def check(one: _Replaying, outcome: Stretch | FastsseError) -> None:
            self._check(one, place, outcome)

        outcome = self._turns.read(EVERYTHING, place - 1, 1, one)
        if outcome is UNKNOWN_YET:
            self._wait_for(one, check)
        else:
            check(one, outcome)

    def _check(self, one: _Replaying, place: int, outcome: Stretch | FastsseError) -> None:
        if isinstance(outcome, FastsseError):
            self._fail(one)
            return
        rights = one.channel.rights
        hidden = any(
            entry.frame.private and not (rights and rights.covers_subscribe(entry.topics))
            for entry in outcome.entries
            if entry.position == place
        )
        self._on_checked(one, None if hidden else place)

    def _on_checked(self, one: _Replaying, place: int | None) -> None:
        one.begun = begin_at(self._history, one.channel, one.subscription.cursor, place)
        self._begun(one)

    def _begun(self, one: _Replaying) -> None:
        assert one.begun is not None
        one.gap = one.begun.gap
        if self._must_wait() and one.subscription.dialect.opens:
            # The opening is this stream's first page: when it is sent, the next is asked for.
            block = self._block(one, one.begun.place, one.gap)
            self._replays[one.handle] = one
            self._attach(one, block, None, live=False)
        elif self._must_wait():
            self._replays[one.handle] = one
            self._waiting[one.handle] = None
        else:
            self._read_page(one)

    # -- pages ----------------------------------------------------------------------------------

    def _read_page(self, one: _Replaying) -> None:
        assert one.begun is not None
        page = self._pages.read(one.channel, one.begun.replay.after, one)
        if page is None:
            self._wait_for(one, self._on_stretch)
        else:
            self._on_page(one, page)

    def _on_stretch(self, one: _Replaying, outcome: Stretch | FastsseError) -> None:
        assert one.begun is not None
        self._on_page(one, self._pages.made(one.channel, one.begun.replay.after, outcome))

    def _on_page(self, one: _Replaying, page: JoinedPage | FastsseError) -> None:
        """Sends a page. The last one and going live are one command, given in the same step that
        read the page: no event can lie between."""
        if isinstance(page, FastsseError):
            self._fail(one)
            return
        assert one.begun is not None
        place = page.before if one.begun.place is None else one.begun.replay.after
        gap = one.gap = one.begun.replay.advance(page) or one.gap
        if page.frame is None and not page.is_last and gap is None:
            self._read_page(one)
        elif one.opening is not None:
            if not page.is_last:
                self._replays[one.handle] = one
            else:
                self._replays.pop(one.handle, None)
            self._attach(one, self._block(one, place, gap), page.frame, live=page.is_last)
        elif gap is not None and not one.subscription.dialect.tells:
            self._fail(one)
        else:
            self._send_page(one, page, gap)

    def _send_page(self, one: _Replaying, page: JoinedPage, gap: Gap | None) -> None:
        if page.is_last:
            del self._replays[one.handle]
        one.gap = None
        self._count(gap)
        frame = page.frame if gap is None else after_gap(gap, page.frame)
        self._sender.page(one.handle, frame, page.is_last)

    def _attach(self, one: _Replaying, block: bytes, page: Frame | None, *, live: bool) -> None:
        """Gives the sender a stream that is ready to begin."""
        opening, gap = one.opening, one.gap
        assert opening is not None
        head = opening.head
        if not isinstance(head, bytes):
            asked = one.subscription.cursor
            known = asked.kind == "after" and gap is None
            head = head(asked.text if known else b"earliest")
        if page is not None or live:
            first = [_first_frame(head, block, opening.chunked)]
        else:
            first = [wire_frame(head), raw_frame(block)]
        if page is not None:
            first.append(page)
        self._give(one, live, first)
        one.gap = None
        if one.subscription.dialect.tells:
            self._count(gap)

    def _give(self, one: _Replaying, live: bool, first: list[Frame]) -> None:
        opening = one.opening
        assert opening is not None
        number = one.channel.number
        self._sender.attach(
            one.handle, opening.fd, number, opening.chunked, live, first, **opening.options
        )
        one.opening = None

    def _wait_for(self, one: _Replaying, then: "Callable[[_Replaying, Any], None]") -> None:
        """Has a stream go on when the backbone has answered."""

        def go_on(one: _Replaying, outcome: Any) -> None:
            try:
                then(one, outcome)
                self.wake()
            except Exception:
                self._drop(one)
                raise

        self._replays[one.handle] = one
        one.then = go_on

    def _fail(self, one: _Replaying) -> None:
        """Ends a stream whose events can't be read now, or can't be told what is missing: it
        comes back, and asks again."""
        self.replays_failed += 1
        if self._replays.pop(one.handle, None) is None:
            raise TurnedAway("store")
        self._stop_replaying(one)
        farewell = raw_frame(b"retry: %d\n\n" % (self._retry_ms * (1 + random.random())))
        self._sender.close(one.handle, REASON_ENDED, farewell)

    def _stop_replaying(self, one: _Replaying) -> None:
        """Gives the sender a stream that is to end before it began."""
        one.ended = True
        self._waiting.pop(one.handle, None)
        if one.opening is None:
            return
        head = one.opening.head
        block = opening_block(self._retry_ms, None) if one.subscription.dialect.opens else COMMENT
        first = [wire_frame(head if isinstance(head, bytes) else head(None)), raw_frame(block)]
        self._give(one, False, first)

    def _drop(self, one: _Replaying) -> None:
        """Something failed where nobody can be told: what the sender does not have is let go."""
        self._replays.pop(one.handle, None)
        one.ended = True
        opening, one.opening = one.opening, None
        if opening is not None:
            os.close(opening.fd)
            self._sender.release(one.handle)
            self._bearers.pop(one.handle, None)
            self._channels.leave(one.channel)
            selectors = one.channel.selectors
            self.on_closed(ClosedStream(one.handle, selectors, REASONS[REASON_ENDED], 0.0, 0, 0))

    def _go_on_waiting(self) -> None:
        while self._waiting and not self._must_wait():
            handle, _ = self._waiting.popitem(last=False)
            self._read_page(self._replays[handle])
            self.wake()

    def _must_wait(self) -> bool:
        held_bytes = self._sender.memory_bytes - self._history.bytes
        return held_bytes > self._replay_memory_bytes

    def _count(self, gap: Gap | None) -> None:
        if gap is not None:
            self.gaps[gap.reason] += 1

    def _end(
        self, handle: int, number: int, reason: str, duration_s: float, events: int, size: int
    ) -> ClosedStream:
        one = self._replays.pop(handle, None)
        if one is not None:
            one.ended = True
            self._waiting.pop(handle, None)
        self._bearers.pop(handle, None)
        channel = self._channels[number]
        self._channels.leave(channel)
        return ClosedStream(handle, channel.selectors, reason, duration_s, events, size)


def _options(rights: Rights | None, pings: bool) -> dict[str, Any]:
    """What `Sender.attach` takes beside what every stream has."""
    options: dict[str, Any] = {}
    if rights is not None and any(rights.claims):
        options["claims"] = rights.claims
    if pings:
        options["pings"] = True
    return options


def _first_frame(head: bytes, block: bytes, chunked: bool) -> Frame:
    """The response head and the opening block, framed for the client's coding."""
    return wire_frame(b"%b%x\r\n%b\r\n" % (head, len(block), block) if chunked else head + block)
