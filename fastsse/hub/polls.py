"""Polls: requests that are answered with a page of history, now or when the next event comes.

A poll places its cursor and reads its page as a stream does. A poll without events waits, without a
task or timer of its own. Waiting polls of the same channel and place are one group, whose page is
read once when an event of its topics comes. A sweep once a second answers polls whose time is over.
Loop thread only.

Over 400 lines: the steps of one poll and the groups that wait are one state machine.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from fastsse._core import Frame
from fastsse.auth.rights import Rights
from fastsse.backbone import Stretch
from fastsse.entries import Entry
from fastsse.errors import FastsseError, StreamRefused, Unavailable
from fastsse.hub.channels import Channel, Channels
from fastsse.hub.ended_rights import EndedRights, HaveEnded
from fastsse.hub.history import History
from fastsse.hub.resume.cursor import (
    GapEvent,
    ReplayCursor,
    ReplayStart,
    begin,
    begin_at,
    is_hidden,
)
from fastsse.hub.resume.pages import JoinedPage, Pages, shown_place
from fastsse.hub.resume.store_queries import UNKNOWN_YET, StoreQueries
from fastsse.hub.topic_ends import TopicEnds
from fastsse.hub.views import view_of
from fastsse.positions import now_ms, parse_id, position_ms
from fastsse.subscriptions import ANY, Subscription

__all__ = ["PollPage", "Polls"]

WAITING_MAX: Final = 100_000
ANSWERS_A_TURN: Final = 200
_EVERYTHING: Final = (ANY,)
_RETRY_AFTER_S: Final = 2


class PollPage(NamedTuple):
    """The answer to a poll.

    Attributes:
        frame: the events, joined; None for none. Equal polls get the same object.
        next: the place from which the next poll continues.
        gap: reports events that are missing before these; None: none are missing.
        ended: no event will follow: the topics have ended, or `until` was met.
        secrets: which of the events are private, counted from 0.
    """

    frame: Frame | None
    next: int
    gap: GapEvent | None
    ended: bool
    secrets: frozenset[int] = frozenset()


Done = Callable[[PollPage | FastsseError], None]


class _Waiting:
    """One poll that waits. Without `done` it is answered, and without a group, which would stay in
    memory until its deadline."""

    __slots__ = ("done", "group", "rights")

    def __init__(self, done: Done, group: "_Group", rights: Rights | None) -> None:
        self.done: Done | None = done
        self.group = group
        self.rights = rights


class _Group:
    """Polls of one channel that wait at the same place, as a `QueryWaiter`."""

    __slots__ = ("channel", "ended", "on_outcome", "polls", "replay")

    def __init__(self, channel: Channel, replay: ReplayCursor) -> None:
        self.channel = channel
        self.replay = replay
        self.polls: dict[_Waiting, None] = {}  # In their order.
        self.ended = False
        self.on_outcome: Callable[[Any], None] | None = None

    def on_answer(self, outcome: Any) -> None:
        """The store has answered."""
        assert self.on_outcome is not None
        self.on_outcome(outcome)


class Polls:
    """All polls of one worker.

    Arguments:
        channels: the channels, which polls use as streams do.
        history: the events in memory.
        queries: reads the store.
        pages: makes and caches pages.
        ends: knows which topics have ended.

    Attributes:
        waiting: number of waiting polls.
        answered: number of answered polls.
        on_erased: called when an event was deleted.
        later: calls a function in the loop's next turn.
    """

    def __init__(
        self,
        channels: Channels,
        history: History,
        queries: StoreQueries,
        pages: Pages,
        ends: TopicEnds,
    ) -> None:
        self._channels = channels
        self._history = history
        self._queries = queries
        self._pages = pages
        self._ends = ends
        self.on_erased: Callable[[], None] = lambda: None
        self.later: Callable[[Callable[[], None]], object] = _next_turn
        self.waiting = 0
        self.answered = 0
        self._groups: dict[tuple[Channel, int], _Group] = {}
        self._by_topic: dict[str, set[_Group]] = {}
        self._broad: set[_Group] = set()
        self._woken: set[_Group] = set()
        self._is_due = False
        # Polls with a rate, until the span of their place is over.
        self._held: set[_Held] = set()
        # Polls by the second of their deadlines.
        self._deadlines: dict[int, list[_Waiting]] = {}
        # Answers that wait for their turn; a few are sent in each turn of the loop.
        self._ready: deque[tuple[Done, PollPage | FastsseError]] = deque()
        self._is_giving = False
        self._ended_rights = EndedRights(self._all_waiting, self._end)

    def open(
        self,
        subscription: Subscription,
        rights: Rights | None,
        wait_until_s: float,
        done: Done,
    ) -> Callable[[], None]:
        """Calls `done` once with a page: at once if there are events, a gap or an end; else when
        the next event comes; else with an empty page at `wait_until_s`, or up to two seconds later.
        Returns what ends the waiting, for a client that is gone.

        Raises Unavailable if there are too many filters or waiting polls.
        """
        if self.waiting >= WAITING_MAX:
            raise Unavailable("polls", _RETRY_AFTER_S)
        try:
            channel = self._channels.join(
                subscription.selectors, rights, is_quiet=False, view=view_of(subscription)
            )
        except StreamRefused:
            raise Unavailable("filters", _RETRY_AFTER_S) from None

        def leave(outcome: PollPage | FastsseError) -> None:
            self._channels.leave(channel)
            self.answered += 1
            done(outcome)

        poll = _Poll(self, subscription, channel, rights, wait_until_s, leave)
        span_left_s = min(_span_left_s(subscription), wait_until_s - time.monotonic())
        if span_left_s > 0:
            self.waiting += 1
            held = _Held(self, poll, rights, span_left_s)
            self._held.add(held)
            return held.give_up
        try:
            poll.begin()
        except BaseException:
            self._channels.leave(channel)
            raise
        return poll.give_up

    def on_entries(self, entries: Sequence[Entry]) -> None:
        """Wakes the polls that wait for one of these entries. O(topics of the entries), O(1) while
        no poll waits."""
        if not self._groups:
            return
        woken = self._woken
        for entry in entries:
            for name in entry.topics:
                groups = self._by_topic.get(name)
                if groups is not None:
                    woken |= groups
        woken |= self._broad
        if woken and not self._is_due:
            self._is_due = True
            self.later(self._wake)

    def sweep(self, now_s: float) -> None:
        """Answers polls whose time is over. O(number of them)."""
        for second in sorted(one for one in self._deadlines if one <= now_s):
            for poll in self._deadlines.pop(second):
                self._expire(poll)

    def answer_all(self) -> None:
        """Answers all waiting polls, because the service ends: with empty pages, and those of a
        rate with what there is."""
        for held in list(self._held):
            held.give_up()
        for group in list(self._groups.values()):
            self._forget(group)
            self._answer(group, self._empty(group.channel, group.replay.after))

    def end_revoked(self, have_ended: HaveEnded) -> None:
        """Answers the polls that wait with rights that have ended, within some turns of the loop.
        The answer is an empty page: `done` checks the rights."""
        self._ended_rights.look(have_ended)

    def _all_waiting(self) -> "Iterable[_Waiting | _Held]":
        return [*(poll for polls in self._deadlines.values() for poll in polls), *self._held]

    def _end(self, poll: "_Waiting | _Held") -> None:
        if isinstance(poll, _Held):
            poll.give_up()
        else:
            self._expire(poll)

    def look_again(self) -> None:
        """Answers all waiting polls with the gap after a loss."""
        self._woken |= set(self._groups.values())
        self._wake()

    def hold(
        self,
        channel: Channel,
        replay: ReplayCursor,
        rights: Rights | None,
        wait_until_s: float,
        done: Done,
    ) -> Callable[[], None]:
        """A poll waits at its cursor; memory has all events after it. Returns what answers it at
        once."""
        group = self._group(channel, replay)
        poll = _Waiting(done, group, rights)
        group.polls[poll] = None
        self.waiting += 1
        self._deadlines.setdefault(math.ceil(wait_until_s), []).append(poll)
        return lambda: self._expire(poll)

    def _group(self, channel: Channel, replay: ReplayCursor) -> _Group:
        key = channel, replay.after
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(channel, replay)
            for groups in self._homes(channel):
                groups.add(group)
        return group

    def _homes(self, channel: Channel) -> Iterable[set[_Group]]:
        """The sets in which an event finds a group of this channel."""
        if not isinstance(channel.topics, tuple):
            return (self._broad,)
        return [self._by_topic.setdefault(topic.name, set()) for topic in channel.topics]

    def _forget(self, group: _Group) -> None:
        group.ended = True
        key = group.channel, group.replay.after
        if self._groups.get(key) is group:
            del self._groups[key]
        self._woken.discard(group)
        self._broad.discard(group)
        if isinstance(group.channel.topics, tuple):
            for topic in group.channel.topics:
                groups = self._by_topic.get(topic.name)
                if groups is not None:
                    groups.discard(group)
                    if not groups:
                        del self._by_topic[topic.name]

    def _wake(self) -> None:
        self._is_due = False
        woken, self._woken = self._woken, set()
        for group in woken:
            if not group.ended:
                self._forget(group)
                group.ended = False
                self._read(group)

    def _read(self, group: _Group) -> None:
        """Reads the page after a group's place: it is the answer for all, or they wait further."""
        replay = group.replay
        page = self._pages.read(group.channel, replay.after, group, replay.seen)
        if page is None:
            group.on_outcome = lambda outcome: self._on_page(
                group, self._pages.made(group.channel, replay.after, outcome, replay.seen)
            )
        else:
            self._on_page(group, page)

    def _on_page(self, group: _Group, page: JoinedPage | FastsseError) -> None:
        if isinstance(page, FastsseError):
            self._answer(group, page)
            return
        answer = self.answer_of(group.channel, group.replay, page)
        if answer is not None:
            self._answer(group, answer)
        elif not page.is_last:
            self._read(group)
        else:
            self._go_on_waiting(group)

    def _go_on_waiting(self, group: _Group) -> None:
        other = self._group(group.channel, group.replay)
        for poll in group.polls:
            poll.group = other
        other.polls |= group.polls

    def answer_of(
        self, channel: Channel, replay: ReplayCursor, page: JoinedPage
    ) -> PollPage | None:
        """The answer with this page; None if it has no events, gap or end."""
        gap = replay.advance(page)
        is_over = page.is_over or (page.is_last and self._ends.are_over(channel))
        if page.frame is None and gap is None and not is_over:
            return None
        place = shown_place(self._history, channel, page.through)
        return PollPage(page.frame, place, gap, is_over, page.secrets)

    def _empty(self, channel: Channel, after: int) -> PollPage:
        return PollPage(None, shown_place(self._history, channel, after), None, False)

    def _answer(self, group: _Group, outcome: PollPage | FastsseError) -> None:
        polls, group.polls = group.polls, {}
        for poll in polls:
            done, poll.done = poll.done, None
            del poll.group
            if done is not None:
                self._give(done, outcome)

    def _expire(self, poll: _Waiting) -> None:
        done, poll.done = poll.done, None
        if done is None:
            return
        group = poll.group
        del poll.group, group.polls[poll]
        if not group.polls:
            self._forget(group)
        self._give(done, self._empty(group.channel, group.replay.after))

    def _give(self, done: Done, outcome: PollPage | FastsseError) -> None:
        self.waiting -= 1
        self._ready.append((done, outcome))
        if not self._is_giving:
            self._is_giving = True
            self.later(self._give_some)

    def _give_some(self) -> None:
        """Sends some answers; each takes some microseconds of the loop."""
        for _ in range(min(len(self._ready), ANSWERS_A_TURN)):
            done, outcome = self._ready.popleft()
            done(outcome)
        self._is_giving = bool(self._ready)
        if self._is_giving:
            self.later(self._give_some)


class _Poll:
    """One poll until it is answered or waits, as a `QueryWaiter`. The steps are those of
    `resume/replayer.py`, without a stream."""

    ended: Final = False

    def __init__(
        self,
        polls: Polls,
        subscription: Subscription,
        channel: Channel,
        rights: Rights | None,
        wait_until_s: float,
        done: Done,
    ) -> None:
        self._polls = polls
        self._rights = rights
        self._history = polls._history
        self._queries = polls._queries
        self._subscription = subscription
        self._channel = channel
        self._wait_until_s = wait_until_s
        self._done = done
        self._then: Callable[[Any], None] = lambda outcome: None
        self._gap: GapEvent | None = None
        self._answer_now: Callable[[], None] = lambda: None

    def give_up(self) -> None:
        """It waits no longer: its client is gone."""
        self._wait_until_s = 0.0
        self._answer_now()

    def begin(self) -> None:
        """Begins when the channel's templates have examined all topics."""
        if self._channel.waiting is not None:
            self._then = lambda _: self._learn_ends()
            self._channel.waiting.append(self)
        else:
            self._learn_ends()

    def on_answer(self, outcome: Any) -> None:
        """The store has answered."""
        self._then(outcome)

    def _take(self, outcome: Any, then: Callable[[Any], None]) -> None:
        self._then = then
        if outcome is not UNKNOWN_YET:
            then(outcome)

    def _learn_ends(self) -> None:
        names = self._polls._ends.unknown(self._channel)
        if not names:
            self._place()
            return

        def learn(ends: Any) -> None:
            self._polls._ends.learn(self._channel, ends)
            self._place()

        self._take(self._queries.ended_topics(names, self), learn)

    def _place(self) -> None:
        cursor = self._subscription.cursor
        begun = begin(self._history, self._channel, cursor)
        if begun is not None:
            self._begun(begun)
        else:
            sought = self._queries.seek(self._channel.selectors, cursor, self)
            self._take(sought, self._on_sought)

    def _on_sought(self, place: int | FastsseError | None) -> None:
        if isinstance(place, FastsseError):
            self._done(place)
            return
        cursor, rights = self._subscription.cursor, self._channel.rights
        reads_all = rights is not None and rights.subscribe == _EVERYTHING
        is_own_id = cursor.kind == "after" and parse_id(cursor.text) is None
        if place is None or reads_all or not is_own_id:
            self._placed(place)
            return

        def checked(outcome: Stretch | FastsseError) -> None:
            if isinstance(outcome, FastsseError):
                self._done(outcome)
            else:
                hidden = is_hidden(self._history, outcome.entries, place, rights)
                self._placed(None if hidden else place)

        self._take(self._queries.read(_EVERYTHING, place - 1, 1, self), checked)

    def _placed(self, place: int | None) -> None:
        self._begun(begin_at(self._history, self._channel, self._subscription.cursor, place))

    def _begun(self, begun: ReplayStart) -> None:
        self._gap, self._replay = begun.gap, begun.replay
        self._read()

    def _read(self) -> None:
        channel, replay, pages = self._channel, self._replay, self._polls._pages
        page = pages.read(channel, replay.after, self, replay.seen)
        if page is None:
            self._then = lambda outcome: self._on_page(
                pages.made(channel, replay.after, outcome, replay.seen)
            )
        else:
            self._on_page(page)

    def _on_page(self, page: JoinedPage | FastsseError) -> None:
        if isinstance(page, FastsseError):
            self._done(page)
            return
        answer = self._polls.answer_of(self._channel, self._replay, page)
        if answer is not None or self._gap is not None:
            place = shown_place(self._history, self._channel, page.through)
            answer = answer or PollPage(None, place, None, False)
            self._done(answer._replace(gap=answer.gap or self._gap))
        elif not page.is_last:
            self._read()
        elif self._wait_until_s:
            self._answer_now = self._polls.hold(
                self._channel, self._replay, self._rights, self._wait_until_s, self._done
            )
        else:
            self._done(self._polls._empty(self._channel, self._replay.after))


class _Held:
    """A poll with a rate whose place is new: it begins when the present span is over, so that polls
    are not answered more often than the rate says."""

    def __init__(
        self, polls: Polls, poll: _Poll, rights: Rights | None, span_left_s: float
    ) -> None:
        self.rights = rights
        self._polls = polls
        self._poll = poll
        self._timer = asyncio.get_running_loop().call_later(span_left_s, self._begin)

    def _begin(self) -> None:
        self._polls._held.discard(self)
        self._polls.waiting -= 1
        self._poll.begin()

    def give_up(self) -> None:
        """It waits no longer: its client is gone, or the service ends."""
        self._poll.give_up()
        if self in self._polls._held:
            self._timer.cancel()
            self._begin()


def _span_left_s(subscription: Subscription) -> float:
    """Seconds until the present span of a rate is over, for a client whose place is in it or in the
    one before; 0 for others, which catch up at once."""
    view, cursor = subscription.view, subscription.cursor
    place = parse_id(cursor.text) if cursor.kind == "after" else None
    if view is None or not view.interval_ms or place is None:
        return 0.0
    span, past_ms = divmod(now_ms(), view.interval_ms)
    is_near = position_ms(place) // view.interval_ms >= span - 1
    return (view.interval_ms - past_ms) / 1000 if is_near else 0.0


def _next_turn(call: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_soon(call)
