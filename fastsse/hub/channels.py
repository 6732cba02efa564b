"""Channels: which streams receive which topics.

A channel is one distinct set of selectors, grants and view. All streams with the same set share it.
It is made for its first stream, and removed when the closed notice of its last stream was read.
Only `channels`, `streams` and `resume` command the sender.

Over 400 lines: a channel is made, prepared and removed in one place.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

from fastsse._core import EVERY_EVENT, Frame, Sender, load_frame
from fastsse._hub import Channel
from fastsse.auth.rights import Rights
from fastsse.hub.history import Selection
from fastsse.hub.templates import Templates, TopicTemplate, WantedTopics
from fastsse.hub.time_budget import TimeBudget
from fastsse.hub.topics import TAIL_PREFIX, Topic, Topics
from fastsse.hub.views import FILTER_BOUNDS, ChannelView, FilterBounds, FilterUse, core_view
from fastsse.positions import format_position
from fastsse.selectors import compile_selector
from fastsse.subscriptions import ANY

__all__ = ["Channel", "Channels"]

# Topics that one step examines to forget them, if there are no templates; with templates fewer.
FORGOTTEN_A_STEP = 4_000
# Topics that the templates of a new channel examine at once, well under a millisecond; and topics
# that a template examines in one later step.
LOOKS_AT_ONCE = 256
# A channel of so many topics is kept for a moment after its last stream: making one costs more than
# opening a stream. At most so many channels are.
KEPT_TOPICS_MIN = 32
UNUSED_MAX = 16
LOOKS_A_STEP = 32


class Channels:
    """All channels of one worker. Loop thread only.

    Arguments:
        sender: only channels and streams may command it.
        topics: the live topics; a channel keeps the topics that it names alive.
        filter_bounds: the bounds on different filters.

    Attributes:
        of_everything: number of channels that receive every event, or any topic's by a template.
        with_views: number of channels with a view.
        filters: number of channels with a filter, by selector and in total.
        on_unready: called when a channel can't be used yet. Then `sweep` must be called soon, and
            again while it returns True.
    """

    def __init__(
        self, sender: Sender, topics: Topics, filter_bounds: FilterBounds = FILTER_BOUNDS
    ) -> None:
        self.of_everything = 0
        self.with_views = 0
        self.filters: Final = FilterUse(filter_bounds)
        self.on_unready: Callable[[], None] = lambda: None
        self._sender = sender
        self._topics = topics
        self._templates = Templates(topics)
        # Without grants and view, of other than one topic.
        self._public: dict[tuple[tuple[str, ...], bool], Channel] = {}
        self._granted: dict[tuple[tuple[str, ...], tuple[str, ...], bool], Channel] = {}
        self._viewed: dict[_ViewKey, Channel] = {}
        self._by_number: list[Channel | None] = []
        self._free_numbers: list[int] = []
        # Channels without a stream, with the number of the sweep before: the longest unused first.
        self._unused: OrderedDict[Channel, int] = OrderedDict()
        self._sweeps = 0
        # Channels whose templates must examine topics, each with these templates. They take turns.
        self._unready: OrderedDict[Channel, tuple[TopicTemplate, ...]] = OrderedDict()
        self._time_budget = TimeBudget()
        topics.on_new = self._on_new

    def __len__(self) -> int:
        return len(self._by_number) - len(self._free_numbers)

    def __getitem__(self, number: int) -> Channel:
        channel = self._by_number[number]
        assert channel is not None
        return channel

    def some(self, first: int, count: int) -> tuple[list[Channel], int | None]:
        """The channels with `count` numbers from `first` on, and the number to continue with; None
        after the last. O(count)."""
        end = first + count
        found = [one for one in self._by_number[first:end] if one is not None]
        return found, end if end < len(self._by_number) else None

    def join(
        self,
        selectors: tuple[str, ...],
        rights: Rights | None,
        *,
        is_quiet: bool = False,
        view: ChannelView | None = None,
    ) -> Channel:
        """The channel of these selectors, grants and view, for one more stream, which must `leave`
        it later.

        O(1) if the channel exists, else O(selectors, grants, and topics that templates match).
        Raises StreamRefused if there would be too many filters."""
        if view is not None:
            return self._join_viewed(selectors, rights, is_quiet, view)
        if rights is None or not rights.subscribe:
            channel = self._ungranted(selectors, is_quiet)
            if channel is None:
                channel = self._add(selectors, None, is_quiet)
                if (topic := _only_topic(channel)) is not None:
                    topic.set_channel(is_quiet, channel.number)
                else:
                    self._public[channel.selectors, is_quiet] = channel
        else:
            key = (selectors, rights.subscribe, is_quiet)
            channel = self._granted.get(key)
            if channel is None:
                channel = self._granted[key] = self._add(selectors, rights, is_quiet)
        return self._joined(channel)

    def _ungranted(self, selectors: tuple[str, ...], is_quiet: bool) -> Channel | None:
        """The channel of these selectors without grants and view. That of one topic is noted by the
        topic, because there may be one for each stream."""
        if len(selectors) == 1:
            topic = self._topics.by_name.get(selectors[0])
            if topic is not None and (number := topic.channel_of(is_quiet)) >= 0:
                return self._by_number[number]
        return self._public.get((selectors, is_quiet))

    def _joined(self, channel: Channel) -> Channel:
        if not channel.streams:
            self._unused.pop(channel, None)
        channel.streams += 1
        return channel

    def _join_viewed(
        self,
        selectors: tuple[str, ...],
        rights: Rights | None,
        is_quiet: bool,
        view: ChannelView,
    ) -> Channel:
        if rights is not None and not rights.subscribe:
            rights = None
        key = _view_key(selectors, rights, is_quiet, view)
        channel = self._viewed.get(key)
        if channel is None:
            if view.view.filter is not None:
                self.filters.check(selectors)
            channel = self._viewed[key] = self._add(selectors, rights, is_quiet, view)
            if view.view.filter is not None:
                self.filters.add(channel.selectors)
        return self._joined(channel)

    def leave(self, channel: Channel) -> None:
        """One stream of the channel has ended."""
        channel.streams -= 1
        if channel.streams:
            return
        if not _is_kept(channel):
            self._drop(channel)
            return
        self._unused[channel] = self._sweeps
        if len(self._unused) > UNUSED_MAX:
            self._drop(self._unused.popitem(last=False)[0])

    def _drop(self, channel: Channel) -> None:
        if self._unready.pop(channel, None) is None:
            self._sender.remove_channel(channel.number)
        if channel.view is not None:
            if channel.view.view.filter is not None:
                self.filters.drop(channel.selectors)
            del self._viewed[
                _view_key(channel.selectors, channel.rights, channel.is_quiet, channel.view)
            ]
        elif channel.rights is None:
            if (topic := _only_topic(channel)) is not None:
                topic.set_channel(channel.is_quiet, -1)
            else:
                del self._public[channel.selectors, channel.is_quiet]
        else:
            del self._granted[channel.selectors, channel.rights.subscribe, channel.is_quiet]
        self._by_number[channel.number] = None
        self._remove(channel)

    def end(self, topic: Topic) -> None:
        """A topic has ended: streams without another open topic end after their last event."""
        if not topic.named:
            return  # The sender receives it with the first channel that names it.
        self._sender.end_topic(topic.number, _end_frame(topic))
        topic.is_end_sent = True

    def reopen(self, topic: Topic) -> None:
        """A topic that had ended is open again."""
        if topic.is_end_sent:
            topic.is_end_sent = False
            self._sender.end_topic(topic.number, None)

    def sweep(self) -> bool:
        """Forgets unneeded topics and prepares channels, for a few milliseconds. Returns True if
        work is left. Drops channels that had no stream since the sweep before."""
        while self._unused and next(iter(self._unused.values())) < self._sweeps:
            self._drop(self._unused.popitem(last=False)[0])
        self._sweeps += 1
        self._time_budget.run(self._step)
        return self._has_more()

    def _step(self) -> bool:
        """One step of this work; True: work is left."""
        if self._topics.idle_count:
            self._forget_some()
        if self._unready:
            self._go_on()
        return self._has_more()

    def _has_more(self) -> bool:
        return self._topics.idle_count > 0 or bool(self._unready)

    def _forget_some(self) -> None:
        count = 1 + FORGOTTEN_A_STEP // (1 + len(self._templates))
        for topic in self._topics.forget_idle(count):
            if not topic.name.startswith(TAIL_PREFIX):
                self._templates.forget(topic)
            self._sender.remove_topic(topic.number)

    def _go_on(self) -> None:
        """Works on the next channel, which then goes to the end of the queue."""
        channel, templates = next(iter(self._unready.items()))
        for pattern in templates:
            if not pattern.is_ready:
                pattern.look(LOOKS_A_STEP)
                self._unready.move_to_end(channel)
                return
        self._make_ready(channel)

    def _add(
        self,
        selectors: tuple[str, ...],
        rights: Rights | None,
        is_quiet: bool,
        view: ChannelView | None = None,
    ) -> Channel:
        topics: Selection = None
        if selectors != (ANY,):
            template_texts = [text for text in selectors if "{" in text and _is_template(text)]
            named = tuple(map(self._topics.intern, _without(selectors, template_texts)))
            for topic in named:
                topic.channels += 1
                topic.named += 1
                if topic.ended_at and not topic.is_end_sent:
                    self.end(topic)
            topics = named
            if not template_texts and type(selectors) is tuple:  # A feed stays one.
                selectors = tuple([topic.name for topic in named])  # Share the names' memory.
        number = self._free_number()
        channel = Channel(number, selectors, topics, rights, is_quiet=is_quiet, view=view)
        if view is not None:
            channel.core_view = core_view(view)
        self.with_views += view is not None
        try:
            if topics is None:
                self.of_everything += 1
            elif template_texts:
                templates = tuple(
                    [self._templates.select(text, channel) for text in template_texts]
                )
                channel.topics = WantedTopics(named, templates, self._templates.numbered)
                self.of_everything += 1  # Whether one of them matches is not looked up.
            self._get_ready(channel)
        except BaseException:
            self._remove(channel)
            raise
        self._by_number[channel.number] = channel
        return channel

    def _get_ready(self, channel: Channel) -> None:
        """Gives the sender a new channel, now or when its templates have examined all topics."""
        rights, topics = channel.rights, channel.topics
        if rights is None and not isinstance(topics, WantedTopics):
            self._command(channel)
            return
        templates: list[TopicTemplate] = []
        if rights is not None and rights.subscribe != (ANY,):
            templates += self._templates.grant(rights.subscribe, channel)
        if isinstance(topics, WantedTopics):
            templates += topics.templates
        looks = sum(pattern.left + pattern.topics.count for pattern in templates)
        if looks <= LOOKS_AT_ONCE:
            for pattern in templates:
                pattern.look(pattern.left)
            self._command(channel)
            return
        channel.waiting = []
        self._unready[channel] = tuple(templates)
        if len(self._unready) == 1:
            self._time_budget.run(self._step)
        if self._unready:
            self.on_unready()

    def _make_ready(self, channel: Channel) -> None:
        waiting, channel.waiting = channel.waiting, None
        del self._unready[channel]
        self._command(channel)
        for stream in waiting or ():
            if not stream.ended:
                stream.on_answer(None)

    def _command(self, channel: Channel) -> None:
        topics, rights = channel.topics, channel.rights
        granted: Iterable[int] = ()
        if rights is not None:
            is_all = rights.subscribe == (ANY,)
            granted = (EVERY_EVENT,) if is_all else self._templates.covered(rights.subscribe)
        can_end = isinstance(topics, tuple)
        self._sender.add_channel(
            channel.number,
            _numbers(topics),
            granted,
            channel.is_quiet,
            can_end,
            channel.core_view,
        )

    def _remove(self, channel: Channel) -> None:
        """Removes all references to a channel that the sender does not have."""
        self._free_numbers.append(channel.number)
        self.with_views -= channel.view is not None
        topics = channel.topics
        if topics is None:
            self.of_everything -= 1
        elif isinstance(topics, WantedTopics):
            self.of_everything -= 1
            for pattern in topics.templates:
                self._templates.unselect(pattern.selector.text, channel)
            topics = topics.named
        for topic in topics or ():
            topic.channels -= 1
            topic.named -= 1
            if not topic.named:
                self._topics.may_be_idle(topic)
        if channel.rights is not None:
            self._templates.ungrant(channel.rights.subscribe, channel)

    def _on_new(self, topic: Topic) -> None:
        """Matches a new topic with all templates and grants, once."""
        linked, granted = self._templates.look_at(topic)
        for channel in linked:
            self._sender.link(topic.number, channel.number)
        for channel in granted:
            self._sender.grant(topic.number, channel.number)

    def _free_number(self) -> int:
        if self._free_numbers:
            return self._free_numbers.pop()
        self._by_number.append(None)
        return len(self._by_number) - 1


def _end_frame(topic: Topic) -> Frame:
    """The event for streams whose last open topic has ended."""
    position = topic.ended_at
    data = json.dumps({"topic": topic.name}, separators=(",", ":"), ensure_ascii=False).encode()
    body = b"event: fastsse.end\nid: %b\ndata: %b\n\n" % (format_position(position), data)
    return load_frame(body, position, False, None, False)


_ViewKey = tuple[tuple[str, ...], tuple[str, ...] | None, bool, ChannelView]


def _view_key(
    selectors: tuple[str, ...], rights: Rights | None, is_quiet: bool, view: ChannelView
) -> _ViewKey:
    return selectors, None if rights is None else rights.subscribe, is_quiet, view


def _numbers(topics: Selection) -> tuple[int, ...]:
    """The numbers of a channel's topics, for the sender."""
    if topics is None:
        return (EVERY_EVENT,)
    if isinstance(topics, WantedTopics):
        return tuple(topics.numbers)
    return tuple([topic.number for topic in topics])


def _only_topic(channel: Channel) -> Topic | None:
    """The topic of a channel of one topic, else None."""
    topics = channel.topics
    return topics[0] if isinstance(topics, tuple) and len(topics) == 1 else None


def _is_kept(channel: Channel) -> bool:
    """Whether a channel is kept for a moment when it has no stream. One with a filter or a rate is
    not: it is counted, or has a state of its own."""
    if not isinstance(channel.topics, tuple) or len(channel.topics) < KEPT_TOPICS_MIN:
        return False
    is_whole = channel.view is None or not channel.view.view.is_partial
    return is_whole and channel.waiting is None


def _is_template(text: str) -> bool:
    return not compile_selector(text).is_exact


def _without(selectors: tuple[str, ...], template_texts: list[str]) -> tuple[str, ...]:
    if not template_texts:
        return selectors
    return tuple([text for text in selectors if text not in template_texts])
