"""Channels: who listens to what. The one module that commands the sender.

A channel is one distinct set of selectors, shared by all streams that asked for the same. It is
made for its first stream and removed when the last one's closed notice was taken. A stream is a
number here, its handle; only while it replays does Python keep anything about it.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from fastsse._core import QUEUE_LIMIT, Frame, Sender, raw_frame, wire_frame
from fastsse.errors import TurnedAway
from fastsse.hub.history import PAGE_BYTES, History, Selection
from fastsse.hub.replay import Gap, PageCache, Replay, after_gap, opening_block
from fastsse.hub.topics import Topic, Topics
from fastsse.subscriptions import ANY, Cursor, Subscription

__all__ = ["Channels", "ClosedStream", "Cursor", "Subscription"]

EVERY_EVENT_NUMBER: Final = 0
# Heads differ by what the request allows (coding, CORS origin); more than these are a flood.
OPENINGS_MAX = 64
# Topics that one sweep looks at, to forget them.
SWEEP_TOPICS = 4_000


class ClosedStream(NamedTuple):
    """What is left of a stream: for the access log."""

    handle: int
    selectors: tuple[str, ...]
    reason: str
    duration_s: float
    events: int
    bytes: int


class Channel:
    """One distinct set of selectors, and how many streams share it."""

    __slots__ = ("number", "selectors", "streams", "topics")

    def __init__(self, number: int, selectors: tuple[str, ...], topics: Selection) -> None:
        self.number = number
        self.selectors = selectors
        self.topics = topics
        self.streams = 0


class Channels:
    """All channels of one worker. Loop thread only.

    Arguments:
        sender: owns the sockets; nobody else may command it.
        history: what is replayed.
        topics: those of the history; channels keep the ones that they name alive.
        retry_ms: the reconnection time that streams open with.
        replay_memory_bytes: while the core holds more than this beside the history, replays wait
            for their next page, so that whoever catches up never makes publishers wait.
        page_bytes: the bound on one page of a replay.

    Attributes:
        publish: hands a frame on: `publish(frame, topic numbers, policy)`. O(topics). Not needed
            for a topic that no channel names, unless there are channels of everything.
        wake: after the last of a run of publishes, or of `open`.
        of_everything: how many channels get every event.
        on_closed: called with each stream that ended.
        draining: newcomers are turned away.
        gaps: gap events told, by reason.
        replays_total: streams that began anywhere but at the head.
    """

    def __init__(
        self,
        sender: Sender,
        history: History,
        topics: Topics,
        *,
        retry_ms: int,
        replay_memory_bytes: int,
        page_bytes: int = PAGE_BYTES,
    ) -> None:
        self.publish: Final = sender.publish
        self.wake: Final = sender.wake
        self.of_everything = 0
        self.on_closed: Callable[[ClosedStream], None] = lambda stream: None
        self.draining = False
        self.gaps: Counter[str] = Counter()
        self.replays_total = 0
        self._sender = sender
        self._history = history
        self._topics = topics
        self._retry_ms = retry_ms
        self._replay_memory_bytes = replay_memory_bytes
        self._by_selectors: dict[tuple[str, ...], Channel] = {}
        self._by_number: list[Channel | None] = []
        self._free_numbers: list[int] = []
        self._pages = PageCache(page_bytes=page_bytes)
        self._replays: dict[int, tuple[Channel, Replay]] = {}
        # Handles of replays that wait, oldest first; those that end are taken out.
        self._waiting: OrderedDict[int, None] = OrderedDict()
        self._openings: dict[tuple[bytes, bool, bool], Frame] = {}
        self._openings_place = -1

    def __len__(self) -> int:
        return len(self._by_selectors)

    @property
    def replays(self) -> int:
        """Streams that are being replayed to now."""
        return len(self._replays)

    def has_room(self) -> bool:
        """Whether `open` would take one more stream."""
        return (
            not self.draining
            and self._sender.free_slot_count > 0
            and self._sender.pending_commands < QUEUE_LIMIT
        )

    def open(self, subscription: Subscription, head: bytes, chunked: bool, fd: int) -> int:
        """Opens a stream on a socket and returns its handle, by which it is known until closed.

        Arguments:
            subscription: what it gets, and from where on.
            head: the response head, sent before anything else, blank line included.
            chunked: whether what follows the head is sent in HTTP/1.1 chunks.
            fd: a connected socket, the sender's from here on.

        Raises TurnedAway, and then the fd is still the caller's. Costs a few microseconds for a
        stream that begins at the head, O(page) for one that is replayed to.
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
            channel = self._by_selectors.get(subscription.selectors)
            if channel is None:
                channel = self._add(subscription.selectors)
            channel.streams += 1
            if subscription.cursor.kind == "head":
                first = self._opening(head, chunked, subscription.initial_id)
                self._sender.attach(handle, fd, channel.number, chunked, True, (first,))
            else:
                self._open_replay(handle, channel, subscription, head, chunked, fd)
        except Exception:
            self._sender.release(handle)
            if channel is not None:
                self._leave(channel)
            raise
        return handle

    def close(self, handle: int, reason: int, farewell: Frame | None = None) -> bool:
        """Ends a stream at its next frame boundary; False when it has ended already.

        Arguments:
            reason: an index into the core's REASONS.
            farewell: sent before the end, when the stream is not in the middle of something.
        """
        return self._sender.close(handle, reason, farewell)

    def drain(self, window_s: float) -> None:
        """Closes every stream, spread over a time, and turns newcomers away."""
        self.draining = True
        self._sender.drain(round(window_s * 1000))

    def read_notices(self) -> None:
        """Takes what the sender has to say; to be called when its `notice_fd` is readable."""
        closed = []
        for notice in self._sender.take_notices():
            if notice[0] == "closed":
                closed.append(self._end(*notice[1:]))
            elif notice[1] in self._replays:
                self._waiting[notice[1]] = None
        self._go_on_waiting()
        # Last, so that nothing is left undone when a listener fails.
        for stream in closed:
            self.on_closed(stream)

    def sweep(self) -> bool:
        """Forgets topics that nothing needs; has waiting replays go on. True: call again soon."""
        for topic in self._topics.forget_idle(SWEEP_TOPICS):
            self._sender.remove_topic(topic.number)
        self._go_on_waiting()
        return self._topics.idle_count > 0

    # -- streams --------------------------------------------------------------------------------

    def _opening(self, head: bytes, chunked: bool, initial_id: bool) -> Frame:
        """The first bytes of a stream that begins at the head: the same for all until the next
        publish."""
        place = self._history.head
        if place != self._openings_place or len(self._openings) >= OPENINGS_MAX:
            self._openings.clear()
            self._openings_place = place
        key = (head, chunked, initial_id)
        frame = self._openings.get(key)
        if frame is None:
            block = opening_block(self._retry_ms, place if initial_id else None)
            frame = self._openings[key] = _first_frame(head, block, chunked)
        return frame

    def _open_replay(
        self,
        handle: int,
        channel: Channel,
        subscription: Subscription,
        head: bytes,
        chunked: bool,
        fd: int,
    ) -> None:
        replay, gap = Replay.begin(self._history, channel.topics, subscription.cursor)
        place = replay.after if subscription.initial_id else None
        if self._must_wait():
            block = opening_block(self._retry_ms, place, gap)
            # The opening is this stream's first page: when it is sent, the next is asked for.
            first = [wire_frame(head), raw_frame(block)]
            live = False
        else:
            page = self._pages.read(self._history, channel.selectors, channel.topics, replay.after)
            gap = replay.advance(page) or gap
            block = opening_block(self._retry_ms, place, gap)
            first = [_first_frame(head, block, chunked)]
            live = page.is_last
            if page.frame is not None:
                first.append(page.frame)
        self._sender.attach(handle, fd, channel.number, chunked, live, first)
        self.replays_total += 1
        self._count(gap)
        if not live:
            self._replays[handle] = channel, replay

    def _go_on_waiting(self) -> None:
        while self._waiting and not self._must_wait():
            handle, _ = self._waiting.popitem(last=False)
            self._send_next_page(handle, *self._replays[handle])

    def _send_next_page(self, handle: int, channel: Channel, replay: Replay) -> None:
        """Sends the next page. The last one and going live are one command, given in the same
        step that read the page: no event can lie between."""
        page = self._pages.read(self._history, channel.selectors, channel.topics, replay.after)
        gap = replay.advance(page)
        self._count(gap)
        if page.is_last:
            del self._replays[handle]
        frame = page.frame if gap is None else after_gap(gap, page.frame)
        self._sender.page(handle, frame, page.is_last)

    def _must_wait(self) -> bool:
        held_bytes = self._sender.memory_bytes - self._history.bytes
        return held_bytes > self._replay_memory_bytes

    def _count(self, gap: Gap | None) -> None:
        if gap is not None:
            self.gaps[gap.reason] += 1

    def _end(
        self, handle: int, number: int, reason: str, duration_s: float, events: int, size: int
    ) -> ClosedStream:
        channel = self._by_number[number]
        assert channel is not None
        if self._replays.pop(handle, None) is not None:
            self._waiting.pop(handle, None)
        self._leave(channel)
        return ClosedStream(handle, channel.selectors, reason, duration_s, events, size)

    # -- channels -------------------------------------------------------------------------------

    def _add(self, selectors: tuple[str, ...]) -> Channel:
        # A selector that is a pattern would be matched here with the topics that there are, and
        # with each later one by `Topics.on_new`, which links the topic in the sender.
        topics: tuple[Topic, ...] | None = None
        numbers: tuple[int, ...] = (EVERY_EVENT_NUMBER,)
        if selectors != (ANY,):
            topics = tuple(map(self._topics.intern, selectors))
            selectors = tuple(topic.name for topic in topics)  # Share the names' memory.
            numbers = tuple(topic.number for topic in topics)
        channel = Channel(self._free_number(), selectors, topics)
        try:
            self._sender.add_channel(channel.number, numbers)
        except BaseException:
            self._free_numbers.append(channel.number)
            for topic in topics or ():
                self._topics.may_be_idle(topic)
            raise
        self._by_number[channel.number] = self._by_selectors[selectors] = channel
        if topics is None:
            self.of_everything += 1
        for topic in topics or ():
            topic.channels += 1
        return channel

    def _free_number(self) -> int:
        if self._free_numbers:
            return self._free_numbers.pop()
        self._by_number.append(None)
        return len(self._by_number) - 1

    def _leave(self, channel: Channel) -> None:
        channel.streams -= 1
        if channel.streams:
            return
        self._sender.remove_channel(channel.number)
        del self._by_selectors[channel.selectors]
        self._by_number[channel.number] = None
        self._free_numbers.append(channel.number)
        if channel.topics is None:
            self.of_everything -= 1
        for topic in channel.topics or ():
            topic.channels -= 1
            if not topic.channels:
                self._topics.may_be_idle(topic)


def _first_frame(head: bytes, block: bytes, chunked: bool) -> Frame:
    """The response head and the opening block, framed for the client's coding."""
    return wire_frame(b"%b%x\r\n%b\r\n" % (head, len(block), block) if chunked else head + block)
