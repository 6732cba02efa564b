"""Replays: streams on their way to live.

A stream that resumes, or whose channel is not ready, goes through these steps. All happen within
the call if memory has everything; otherwise each waits for the backbone:

    place its cursor ─▶ read its first page ─▶ attach it ─▶ page by page ─▶ live
                        (reports what is missing, before anything else)

The replayer owns the socket of a stream until it attaches the stream, because the response head and
the opening block depend on the first page. Such a stream has a row of the table, which bounds their
number.

Over 400 lines: the steps are one state machine, and each may continue within the call or later.
"""

import contextlib
import os
import random
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, Final

from fastsse._core import REASON_ENDED, Frame, Sender, raw_frame
from fastsse.auth.rights import Claims
from fastsse.backbone import Stretch
from fastsse.errors import FastsseError, StreamRefused
from fastsse.hub.history import Erased, History
from fastsse.hub.resume.cursor import (
    GapEvent,
    ReplayCursor,
    ReplayStart,
    after_gap,
    begin,
    begin_at,
    is_hidden,
)
from fastsse.hub.resume.options import ReplayOptions
from fastsse.hub.resume.pages import JoinedPage, Pages, shown_place
from fastsse.hub.resume.preamble import (
    ReplayingStream,
    first_block,
    first_frames,
    last_frames,
    over_head,
)
from fastsse.hub.resume.repeats import RepeatedResumes
from fastsse.hub.resume.snapshots import Snapshot, Snapshots
from fastsse.hub.resume.store_queries import UNKNOWN_YET, QueryWaiter, StoreQueries
from fastsse.hub.time_budget import TimeBudget
from fastsse.hub.topic_ends import TopicEnds
from fastsse.log import get_logger
from fastsse.positions import parse_id
from fastsse.subscriptions import ANY

__all__ = ["Replayer"]

log = get_logger("hub")
EVERYTHING: Final = (ANY,)


class Replayer:
    """All streams of one worker that are not live yet. Loop thread only.

    Arguments:
        sender: owns the sockets.
        history: events in memory.
        queries: reads older events.
        pages: makes pages of both.
        options: the reconnection time, how responses end, and the bound on memory.

    Attributes:
        returns: detects clients that resume after the same id repeatedly.
        gaps: number of gap events by reason; one for all streams counts once.
        ends: knows which topics have ended.
        failed: number of streams that ended because the backbone could not be read, or because
            their gap event could not be sent.
        on_dropped: called with a stream that was closed before the sender owned it.
        on_page: called with the handle and the bytes of each page that a stream is sent; None: not.
        on_lost: called when events were lost, after the caches were cleared.
        on_searching: called when `search` must be called soon, and again while it returns True.
    """

    def __init__(
        self,
        sender: Sender,
        history: History,
        queries: StoreQueries,
        pages: Pages,
        options: ReplayOptions,
    ) -> None:
        self.gaps: Counter[str] = Counter()
        self.failed = 0
        self.on_dropped: Callable[[ReplayingStream], None] = lambda one: None
        self.on_page: Callable[[int, int], None] | None = None
        self.on_searching: Callable[[], None] = lambda: None
        self.on_lost: Callable[[], None] = lambda: None
        self._sender = sender
        self._history = history
        self._queries = queries
        self._pages = pages
        self._snapshots = Snapshots(history, queries)
        self.ends = TopicEnds(history, queries)
        self._retry_ms = options.retry_ms
        self._clean_end = options.clean_end
        self._memory_bytes = options.memory_bytes
        self.returns: Final = RepeatedResumes(time.monotonic)
        self._by_handle: dict[int, ReplayingStream] = {}
        self._when_done: dict[int, Callable[[], None]] = {}
        # Handles of streams that wait for memory, oldest first; ended ones are removed.
        self._waiting: OrderedDict[int, None] = OrderedDict()
        # Handles of streams whose page had only hidden events; they continue the search in a share
        # of the loop's time.
        self._searching: OrderedDict[int, None] = OrderedDict()
        self._time_budget = TimeBudget()

    def __len__(self) -> int:
        return len(self._by_handle)

    def when_done(self, handle: int, done: Callable[[], None]) -> bool:
        """Calls `done` when a replaying stream is live or has ended. Returns False for a stream
        that is not replaying."""
        if handle not in self._by_handle:
            return False
        self._when_done[handle] = done
        return True

    def begin(self, one: ReplayingStream) -> None:
        """Places a stream's cursor, reads its first page and attaches it, now or later.

        Raises StreamRefused if the backbone fails now, or what the sender raises: then the caller
        still owns the socket, and the stream does not exist here. An error after the sender owns
        the socket is logged and ends the stream.
        """
        try:
            if one.channel.waiting is None:
                self._place(one)
            else:
                self._wait_for_channel(one, one.channel.waiting)
        except BaseException:
            if one.opening is not None:
                self._forget(one)
                raise
            # The sender owns the socket; the caller would close it after an error.
            log.exception("A stream could not go on.")
            self._drop(one)

    def on_page_sent(self, handle: int) -> None:
        """The sender can take the next page of a stream."""
        if handle in self._by_handle:
            self._waiting[handle] = None

    def go_on(self) -> None:
        """Sends pages to streams that wait for one, as far as memory allows."""
        while self._waiting and not self._must_wait():
            handle, _ = self._waiting.popitem(last=False)
            one = self._by_handle[handle]
            self._go_on(one, self._read_page, one)
        for handle in [one for one in self._when_done if one not in self._by_handle]:
            self._when_done.pop(handle)()

    def search(self) -> bool:
        """Continues searches of streams whose pages were empty. True: some are left."""
        if self._searching:
            self._time_budget.run(self._search)
        return bool(self._searching)

    def _search(self) -> bool:
        handle, _ = self._searching.popitem(last=False)
        one = self._by_handle.get(handle)
        if one is not None:
            self._go_on(one, self._read_page, one)
        return bool(self._searching)

    def on_closed(self, handle: int) -> None:
        """A stream has ended."""
        one = self._by_handle.pop(handle, None)
        if one is not None:
            one.ended = True
            self._waiting.pop(handle, None)

    def stop(self, handle: int) -> None:
        """A stream will be closed: attaches it, if it is not attached yet."""
        one = self._by_handle.pop(handle, None)
        if one is not None:
            self._stop(one)

    def unattached(self) -> list[int]:
        """The streams that the sender does not own yet."""
        return [one.handle for one in self._by_handle.values() if one.opening is not None]

    def unattached_claims(self) -> list[tuple[int, Claims]]:
        """As `unattached`, streams with tokens, each with its claims."""
        return [
            (one.handle, one.opening.options["claims"])
            for one in self._by_handle.values()
            if one.opening is not None and "claims" in one.opening.options
        ]

    def stop_unattached(self) -> None:
        """Attaches all streams, because the sender will close them."""
        for handle in self.unattached():
            self.stop(handle)

    def abandon(self) -> None:
        """Closes the sockets that the sender does not own yet."""
        for one in self._by_handle.values():
            one.ended = True
            if one.opening is not None:
                os.close(one.opening.fd)
        self._by_handle.clear()
        self._waiting.clear()
        self._searching.clear()

    def report_loss(self, place: int) -> None:
        """Sends a gap event to every stream: events up to a place may be missing, and the stream
        continues from there."""
        gap = GapEvent("lost", b"", place)
        self._pages.cache.clear()
        self._snapshots.clear()
        self.on_lost()
        self._sender.announce(raw_frame(gap.encode()))
        self._count(gap)
        for one in self._by_handle.values():
            # Streams that are not attached receive it with their first page.
            if one.opening is None and one.begun is not None:
                one.begun.replay.loss_reported_through = place

    def on_erased(self, erased: Erased) -> None:
        """An event was deleted: no later read may show it."""
        self._pages.cache.clear()
        self._snapshots.clear()
        self._queries.on_erased(erased)

    # -- where it begins ------------------------------------------------------------------------

    def _wait_for_channel(self, one: ReplayingStream, waiting: list[QueryWaiter]) -> None:
        """Waits for the channel. A stream at the head begins at the head of now, not of later."""
        cursor, begun = one.subscription.cursor, None
        if cursor.kind == "head":
            begun = begin(self._history, one.channel, cursor)
        self._wait_for(one, lambda _: self._begun(one, begun) if begun else self._place(one))
        waiting.append(one)

    def _place(self, one: ReplayingStream) -> None:
        names = self.ends.unknown(one.channel)
        if not names:
            self._place_known(one)
            return
        ends = self._queries.ended_topics(names, one)
        if ends is UNKNOWN_YET:
            self._wait_for(one, lambda ends: self._on_ends(one, ends))
        else:
            self._on_ends(one, ends)

    def _on_ends(self, one: ReplayingStream, ends: dict[str, int] | FastsseError) -> None:
        self.ends.learn(one.channel, ends)
        self._place_known(one)

    def _place_known(self, one: ReplayingStream) -> None:
        cursor = one.subscription.cursor
        begun = begin(self._history, one.channel, cursor)
        if begun is not None:
            self._begun(one, begun)
            return
        outcome = self._queries.seek(one.channel.selectors, cursor, one)
        if outcome is UNKNOWN_YET:
            self._wait_for(one, lambda outcome: self._on_sought(one, outcome))
        else:
            self._on_sought(one, outcome)

    def _on_sought(self, one: ReplayingStream, place: int | FastsseError | None) -> None:
        """The backbone placed the cursor. The id of an event that may not be read must stay
        unknown, so the event of a publisher's own id is read and checked first."""
        if isinstance(place, FastsseError):
            self._fail(one)
            return
        rights, cursor = one.channel.rights, one.subscription.cursor
        reads_all = rights is not None and rights.subscribe == EVERYTHING
        is_own_id = cursor.kind == "after" and parse_id(cursor.text) is None
        if place is None or reads_all or not is_own_id:
            self._placed(one, place)
            return
        outcome = self._queries.read(EVERYTHING, place - 1, 1, one)
        if outcome is UNKNOWN_YET:
            self._wait_for(one, lambda outcome: self._check(one, place, outcome))
        else:
            self._check(one, place, outcome)

    def _check(self, one: ReplayingStream, place: int, outcome: Stretch | FastsseError) -> None:
        if isinstance(outcome, FastsseError):
            self._fail(one)
            return
        hidden = is_hidden(self._history, outcome.entries, place, one.channel.rights)
        self._placed(one, None if hidden else place)

    def _placed(self, one: ReplayingStream, place: int | None) -> None:
        cursor = one.subscription.cursor
        self._begun(one, begin_at(self._history, one.channel, cursor, place))

    def _begun(self, one: ReplayingStream, begun: ReplayStart) -> None:
        one.begun, one.gap = begun, begun.gap
        is_at_head = one.subscription.cursor.kind == "head"
        if one.subscription.last_each and (is_at_head or begun.gap is not None):
            self._want_snapshot(one, begun.gap)
        elif begun.place is not None:
            one.place = shown_place(self._history, one.channel, begun.place)
        if one.gap is not None and _ends_at_gap(one):
            self._cut(one, one.gap)
            return
        if not self._must_wait():
            self._read_page(one)
            return
        self._by_handle[one.handle] = one
        if one.subscription.dialect.opens:
            # The opening counts as a page: when it is sent, the next page is requested.
            self._attach(one, None, is_last=False)
        else:
            self._waiting[one.handle] = None

    # -- pages ----------------------------------------------------------------------------------

    def _read_page(self, one: ReplayingStream) -> None:
        assert one.begun is not None
        if one.wants_snapshot:
            self._read_snapshot(one)
            return
        if one.snapshot is not None:
            self._send_snapshot(one, one.snapshot)
            return
        replay = one.begun.replay
        page = self._pages.read(one.channel, replay.after, one, replay.seen)
        if page is None:
            self._wait_for(one, lambda outcome: self._on_stretch(one, outcome))
        else:
            self._on_page(one, page, self._search_later)

    def _on_stretch(self, one: ReplayingStream, outcome: Stretch | FastsseError) -> None:
        assert one.begun is not None
        replay = one.begun.replay
        page = self._pages.made(one.channel, replay.after, outcome, replay.seen)
        self._on_page(one, page, self._read_page)

    def _search_later(self, one: ReplayingStream) -> None:
        self._by_handle[one.handle] = one
        self._searching[one.handle] = None
        self.on_searching()

    def _on_page(
        self,
        one: ReplayingStream,
        page: JoinedPage | FastsseError,
        further: Callable[[ReplayingStream], None],
    ) -> None:
        """Sends a page, or continues the search if it is empty. The last page and going live are
        one command in the same step that read the page, so no event can come between."""
        assert one.begun is not None
        if isinstance(page, FastsseError):
            self._fail(one)
            return
        gap = one.begun.replay.advance(page)
        if gap is not None and one.subscription.last_each:
            self._want_snapshot(one, gap)
            self._read_snapshot(one)
            return
        gap = one.gap = gap or one.gap
        if page.frame is None and not page.is_last and gap is None:
            further(one)
            return
        if one.place is None:
            one.place = page.before
        if gap is not None and _ends_at_gap(one):
            self._cut(one, gap)
            return
        if gap is None and self._is_over(one, page):
            self._answer_over(one)
            return
        self._give_page(one, page)

    def _give_page(self, one: ReplayingStream, page: JoinedPage) -> None:
        if page.is_over:
            self._end_over(one, page.frame)
            return
        if page.is_last:
            self._by_handle.pop(one.handle, None)
        else:
            self._by_handle[one.handle] = one
        if one.opening is not None:
            self._attach(one, page.frame, is_last=page.is_last)
        else:
            self._send_page(one, page)

    def _want_snapshot(self, one: ReplayingStream, gap: GapEvent | None) -> None:
        """The next page is the first of a snapshot, because the stream begins at the head or can't
        be continued. A stream without control events gets the snapshot instead of the gap event."""
        one.wants_snapshot, one.place = True, None
        reports_gaps = one.subscription.dialect.has_control_events
        one.gap = gap.before_snapshot() if gap is not None and reports_gaps else None

    def _read_snapshot(self, one: ReplayingStream) -> None:
        count, has_marker = one.subscription.last_each, one.subscription.dialect.has_control_events
        snapshot = self._snapshots.read(one.channel, count, one, has_marker=has_marker)
        self._on_snapshot(one, snapshot)

    def _on_newest(self, one: ReplayingStream, depth: int, outcome: Stretch | FastsseError) -> None:
        count, has_marker = one.subscription.last_each, one.subscription.dialect.has_control_events
        made = self._snapshots.made(one.channel, count, outcome, one, depth, has_marker=has_marker)
        self._on_snapshot(one, made)

    def _on_snapshot(self, one: ReplayingStream, snapshot: Snapshot | FastsseError | int) -> None:
        if isinstance(snapshot, int):
            depth = snapshot
            self._wait_for(one, lambda outcome: self._on_newest(one, depth, outcome))
            return
        if isinstance(snapshot, FastsseError):
            self._fail(one)
            return
        one.wants_snapshot, one.snapshot = False, snapshot
        one.begun = ReplayStart(ReplayCursor(snapshot.through, b""))
        self._send_snapshot(one, snapshot)

    def _send_snapshot(self, one: ReplayingStream, snapshot: Snapshot) -> None:
        """Sends a page of a snapshot. After the last page the stream is live if no event came."""
        page = snapshot.next_page(self._history.head)
        if snapshot.is_sent:
            one.snapshot = None
        self._give_page(one, page)

    def _is_over(self, one: ReplayingStream, page: JoinedPage) -> bool:
        """Whether a client returns to topics that have ended, and has all events."""
        return (
            page.is_last
            and one.opening is not None
            and one.subscription.cursor.kind == "after"
            and (page.frame is None or page.frame.events == 0)
            and self.ends.are_over(one.channel)
        )

    def _answer_over(self, one: ReplayingStream) -> None:
        """204 stops an EventSource. Within `begin` the caller answers; later the replayer owns the
        socket, and nothing was sent on it."""
        if one.handle not in self._by_handle:
            raise StreamRefused("over")
        assert one.opening is not None
        with contextlib.suppress(OSError):  # The client is gone.
            os.write(one.opening.fd, over_head(one.opening.head))
        self._drop(one)

    def _end_over(self, one: ReplayingStream, page: Frame | None) -> None:
        """Sends the last page of a stream that is over, and ends it. Earlier pages are sent
        completely, because the next page is requested only after that."""
        self._by_handle[one.handle] = one
        gap = one.gap
        if one.opening is not None:
            # The opening is one frame with the head: `close` drops other frames that are not begun.
            self._attach(one, None, is_last=True)
            gap = None
        self._count(gap)
        one.ended, one.gap = True, None
        self._by_handle.pop(one.handle, None)
        frame = page if gap is None else after_gap(gap, page)
        self._sender.close(one.handle, REASON_ENDED, frame, is_over=True)
        self._note(one, page)

    def _send_page(self, one: ReplayingStream, page: JoinedPage) -> None:
        gap, one.gap = one.gap, None
        self._count(gap)
        frame = page.frame if gap is None else after_gap(gap, page.frame)
        self._sender.page(one.handle, frame, page.is_last)
        self._note(one, page.frame)

    def _attach(self, one: ReplayingStream, page: Frame | None, *, is_last: bool) -> None:
        """Gives the sender a stream that is ready to begin."""
        reported = one.gap if one.subscription.dialect.has_control_events else None
        self._note_return(one, page)
        first = first_frames(one, self._retry_ms, reported, page, is_last=is_last)
        self._give(one, is_last, first)
        self._note(one, page)
        self._count(reported)
        one.gap = None

    def _note_return(self, one: ReplayingStream, page: Frame | None) -> None:
        """Notes that a client is sent events that follow its id."""
        cursor = one.subscription.cursor
        if page is not None and one.gap is None and cursor.kind == "after":
            assert one.opening is not None
            selectors, client = one.channel.selectors, one.opening.client
            self.returns.resumed(one.handle, client, selectors, cursor.text)

    def _note(self, one: ReplayingStream, page: Frame | None) -> None:
        if page is not None and self.on_page is not None:
            self.on_page(one.handle, page.size)

    def _give(self, one: ReplayingStream, live: bool, first: list[Frame]) -> None:
        opening = one.opening
        assert opening is not None
        number = one.channel.number
        self._sender.attach(
            one.handle, opening.fd, number, opening.chunked, live, first, **opening.options
        )
        one.opening = None

    # -- waiting and ending ---------------------------------------------------------------------

    def _must_wait(self) -> bool:
        held_bytes = self._sender.memory_bytes - self._history.bytes
        return held_bytes > self._memory_bytes

    def _wait_for(self, one: ReplayingStream, then: Callable[[Any], None]) -> None:
        """Continues a stream with `then` when the backbone has answered."""
        self._by_handle[one.handle] = one
        one.then = lambda outcome: self._go_on(one, then, outcome)

    def _go_on(self, one: ReplayingStream, step: Callable[[Any], None], given: Any) -> None:
        """Does a step that has no caller for its error."""
        try:
            step(given)
            self._sender.wake()
        except Exception:
            log.exception("A stream could not go on.")
            self._drop(one)

    def _fail(self, one: ReplayingStream) -> None:
        """Ends a stream whose events can't be read now, or whose gap event can't be sent. The
        client reconnects and asks again."""
        self.failed += 1
        if self._by_handle.pop(one.handle, None) is None:
            raise StreamRefused("store")
        self._stop(one)
        farewell = raw_frame(b"retry: %d\n\n" % (self._retry_ms * (1 + random.random())))
        self._sender.close(one.handle, REASON_ENDED, farewell, self._clean_end)

    def _cut(self, one: ReplayingStream, gap: GapEvent) -> None:
        """Ends a stream without control events instead of a gap event, so that the client does not
        take its events for complete. A stream that has not begun sends the place after the gap as
        its id, and the client continues there."""
        self.failed += 1
        self._by_handle.pop(one.handle, None)
        farewell = b"retry: %d\n" % (self._retry_ms * (1 + random.random()))
        if one.opening is not None:
            farewell = first_block(one.subscription.dialect, self._retry_ms, gap.resumes_at)
        frame = raw_frame(farewell)
        self._stop(one)
        self._sender.close(one.handle, REASON_ENDED, frame, is_over=False)

    def _stop(self, one: ReplayingStream) -> None:
        """Attaches a stream that ends before it began."""
        one.ended = True
        self._waiting.pop(one.handle, None)
        if one.opening is None:
            return
        if one.channel.waiting is not None:
            self._drop(one)  # The sender does not have its channel.
            return
        self._give(one, False, last_frames(one, self._retry_ms))

    def _drop(self, one: ReplayingStream) -> None:
        """Ends a stream that can't continue, in the sender if it is attached."""
        self._forget(one)
        opening, one.opening = one.opening, None
        if opening is None:
            self._sender.close(one.handle, REASON_ENDED, None, self._clean_end)
        else:
            os.close(opening.fd)
            self.on_dropped(one)

    def _forget(self, one: ReplayingStream) -> None:
        one.ended = True
        self._by_handle.pop(one.handle, None)
        self._waiting.pop(one.handle, None)

    def _count(self, gap: GapEvent | None) -> None:
        if gap is not None:
            self.gaps[gap.reason] += 1


def _ends_at_gap(one: ReplayingStream) -> bool:
    """Whether a stream ends instead of a gap event. On Mercure's path the response head reports the
    gap, if it was not sent yet."""
    dialect = one.subscription.dialect
    return not dialect.has_control_events and (dialect.opens or one.opening is None)
