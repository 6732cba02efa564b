"""The hub: the one place that puts events in order, keeps history, and passes frames on.

A publish is checked as a whole and sent to the backbone. It comes back in order, encoded, through
`_deliver`, which stores it in history and sends it to the sender. Only then is the publish
acknowledged. Loop thread only.

Over 400 lines: publishes, deletions and deliveries have one order.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from fastsse._batch import has_ends, has_repeated_numbers
from fastsse._commit import PublishPath
from fastsse._core import Sender
from fastsse.backbone import Backbone
from fastsse.backbone.judge import JudgedPositions, is_control, is_keyed, is_plain
from fastsse.backbone.keys import KeyTable
from fastsse.backbone.memory import MemoryBackbone
from fastsse.backbone.producers import ProducerTable
from fastsse.backbone.stream_table import StreamTable
from fastsse.config import HistoryOptions, StreamOptions
from fastsse.directives import with_count
from fastsse.entries import sizes
from fastsse.errors import (
    Conflict,
    EventTooLarge,
    FastsseError,
    InterceptorFailed,
    InvalidEvent,
    NotKept,
    Unavailable,
)
from fastsse.events import Event
from fastsse.hub.channels import Channels
from fastsse.hub.erasing import FoundEvent
from fastsse.hub.history import History
from fastsse.hub.publish_rates import PublishRates
from fastsse.hub.published import InterceptedPublished, Published, Separate
from fastsse.hub.resume.cursor import GAP_REASONS
from fastsse.hub.resume.options import ReplayBounds, ReplayOptions
from fastsse.hub.streams import Streams
from fastsse.hub.tails import Tails
from fastsse.hub.topics import Rules, Topics
from fastsse.hub.views import FilterBounds
from fastsse.interceptors import Interceptors
from fastsse.log import get_logger
from fastsse.positions import format_position, now_ms, position_ms
from fastsse.refusal_reasons import PUBLISH_REASONS, PublishReason, UnavailableReason

__all__ = ["SWEEP_ON_S", "Hub"]

RETRY_AFTER_S: Final[dict[UnavailableReason, int]] = {"memory": 5, "queue": 1, "draining": 10}
# The next step of a sweep that is not finished comes after this time.
SWEEP_ON_S: Final = 0.005
# Replays may use this share of the memory outside the history; the rest is for publishers.
REPLAY_MEMORY_SHARE = 0.75

log = get_logger("hub")


class Hub(PublishPath):
    """Puts events in order, keeps them, and passes them to the sender.

    Arguments:
        sender: the core's, started; the hub's channels are the only ones to command it.
        backbone: gives the order; the hub continues at its head.
        history: limits and topic rules.
        streams: `retry`, `clean_end`, `lag_policy`, and `memory_limit`, which includes the history.
        replays: bounds of reading history.
        now_ms: the clock, in unix milliseconds.

    Attributes:
        channels: which streams receive which topics.
        streams: opens streams.
        history: the kept events.
        topics: the live topics.
        events_published: number of events accepted from publishers here.
        entries_seen: number of events from the log, of all publishers.
        publishes_refused: number of refused publishes, by reason.
        refuses: whether publishes are refused, because the service ends.
        interceptors: called with each event before it is ordered; None: there are none.
        on_entries: called with committed entries after they were passed to the sender.
        on_content: the same, for durable streams.
        on_sweep: called by each `sweep`.
        tails: streams that another part encodes, such as those of durable streams.
        find_streams, touch_stream, expired_streams, read_content: methods of the backbone.
        read_stored, read_stream: `read` and `read_stream` of the backbone.
        losses: how often the backbone's log lost events.
    """

    def __init__(
        self,
        sender: Sender,
        backbone: Backbone,
        history: HistoryOptions,
        streams: StreamOptions,
        replays: ReplayBounds = ReplayBounds(),  # noqa: B008 - immutable
        now_ms: Callable[[], int] = now_ms,
    ) -> None:
        start = backbone.start
        self.topics: Final = Topics(Rules(history, streams.lag_policy), start)
        self.history: Final = History(self.topics, history.history_total, start)
        bounds = FilterBounds(streams.max_topic_filters, streams.max_filters)
        self.channels: Final = Channels(sender, self.topics, bounds)
        self.streams: Final = Streams(
            sender,
            self.channels,
            self.history,
            backbone,
            options=ReplayOptions(
                retry_ms=round(streams.retry * 1000),
                clean_end=streams.clean_end == "always",
                memory_bytes=int(
                    REPLAY_MEMORY_SHARE * max(0, streams.memory_limit - history.history_total)
                ),
                bounds=replays,
            ),
            now_ms=now_ms,
        )
        self._rates = PublishRates(self.topics)
        self._polls = self.streams.polls
        self.publishes_refused: Counter[PublishReason | UnavailableReason] = Counter()
        self.erasures: Counter[str] = Counter()
        self.losses = 0
        self.on_sweep: Callable[[], None] | None = None
        self.tails: Final = Tails(sender, self.topics)
        self._now_ms = now_ms
        self._sender = sender
        self._backbone = backbone
        self._memory_limit_bytes = streams.memory_limit
        self._event_limit_bytes = streams.max_event
        self._note_rules()
        self.history.now_ms = now_ms
        self.history.on_ended = self.channels.end
        self.history.on_reopened = self.channels.reopen
        self.history.keeps_streams = isinstance(backbone, MemoryBackbone)
        self.history.has_store = not isinstance(backbone, MemoryBackbone)
        if isinstance(backbone, MemoryBackbone) and backbone.states is None:
            self._equip(backbone, history)
        self.find_streams: Final = backbone.find_streams
        self.touch_stream: Final = backbone.touch_stream
        self.expired_streams: Final = backbone.expired_streams
        self.read_stored: Final = backbone.read
        self.read_stream: Final = backbone.read_stream
        self.read_content: Final = backbone.read_content
        backbone.tail(start, self._deliver, self._on_broken)

    def _equip(self, backbone: MemoryBackbone, history: HistoryOptions) -> None:
        """Gives the memory store what other stores keep themselves: topic states, and the tables
        of keys, producers and durable streams."""
        backbone.states = self.history
        backbone.keys = KeyTable(round(history.key_window * 1000), history.keys_total, self._now_ms)
        backbone.producers = ProducerTable(
            round(history.producer_window * 1000), history.producers_total, self._now_ms
        )
        backbone.streams = StreamTable(history.streams_total, self._now_ms)

    def publish(
        self, events: Sequence[Event], done: Callable[[Published | FastsseError], None]
    ) -> None:
        """Publishes all events or none, in this order. Calls `done` once: with a Published when the
        events are committed and in history, else with a BadRequest, Conflict or Unavailable.

        The memory backbone calls `done` within the call, others later. O(events); the number of
        subscribers has no effect. An `EventBatch` has the lowest cost for each event.
        """
        if self.interceptors is None:
            self._publish(events, done)
        else:
            self._publish_intercepted(self.interceptors, events, done)

    def prepare(self, events: Sequence[Event]) -> Sequence[Event]:
        """The batch that `publish` would append now: intercepted, checked, and with the ends of
        topics; empty when interceptors dropped all. Raises what `publish` gives to `done`."""
        if self.interceptors is not None:
            try:
                events, _ = self.interceptors.apply(events)
            except InterceptorFailed as failed:
                raise self._counted(failed) from None
            if not events:
                return events
        error = self._objection(events)
        if error is not None:
            raise self._counted(error)
        if self._rates.active:
            self._rates.ended(events)
        if self.topics.rules.hides:
            events = [self.topics.hidden(event) for event in events]
        return _with_ends(events)[0]

    def _publish_intercepted(
        self,
        interceptors: Interceptors,
        events: Sequence[Event],
        done: Callable[[Published | FastsseError], None],
    ) -> None:
        try:
            made, firsts = interceptors.apply(events)
        except InterceptorFailed as failed:
            done(self._counted(failed))
            return

        def acknowledge(outcome: Published | FastsseError) -> None:
            if isinstance(outcome, FastsseError):
                done(outcome)
            else:
                done(InterceptedPublished(outcome, firsts))

        if made:
            self._publish(made, acknowledge)
        else:
            acknowledge(Published((), ()))

    def _publish(
        self, events: Sequence[Event], done: Callable[[Published | FastsseError], None]
    ) -> None:
        error = self._objection(events)
        if error is not None:
            done(self._counted(error))
            return
        if self.topics.rules.hides:
            events = [self.topics.hidden(event) for event in events]
        if not is_plain(events):
            self._publish_directed(events, done)
            return

        def acknowledge(outcome: Sequence[int] | FastsseError) -> None:
            if self._rates.active:
                self._rates.ended(events)
            if isinstance(outcome, FastsseError):
                done(self._counted(outcome))
            else:
                self.events_published += len(events)
                done(Published(outcome, events))

        self._backbone.append(events, acknowledge)

    def _publish_keyed(
        self, events: Sequence[Event], done: Callable[[Published | FastsseError], None]
    ) -> None:
        """As `publish`, for one event with a key of its own or of its request."""

        def acknowledge(outcome: Sequence[int] | FastsseError) -> None:
            if isinstance(outcome, FastsseError):
                done(self._counted(outcome))
            elif isinstance(outcome, JudgedPositions):
                done(Published(outcome, events, outcome.duplicates))
            else:
                self.events_published += 1
                done(Published(outcome, events))

        self._backbone.append(events, acknowledge)

    def _publish_directed(
        self, events: Sequence[Event], done: Callable[[Published | FastsseError], None]
    ) -> None:
        """As `publish`, for events with directives. The end of topics is an entry of its own, which
        follows the event in the same batch."""
        if len(events) == 1 and is_keyed(events[0]):
            self._publish_keyed(events, done)
            return
        ends = has_ends(events)
        places: Sequence[int]
        batch, places = _with_ends(events) if ends else (events, range(len(events)))

        def acknowledge(outcome: Sequence[int] | FastsseError) -> None:
            if isinstance(outcome, FastsseError):
                done(self._counted(outcome))
                return
            judged = outcome if isinstance(outcome, JudgedPositions) else None
            duplicates = 0 if judged is None else judged.duplicates
            count = sum([not is_control(event) for event in events]) if ends else len(events)
            # The end of a stream has the number of its last append, so it is a repeat, too.
            self.events_published += max(0, count - duplicates)
            positions = [outcome[at] for at in places] if ends else outcome
            published = Published(positions, events, duplicates)
            if judged is not None:
                published.sequence = judged.sequence
                published.repeats = [n for n, at in enumerate(places) if at in judged.repeats]
                if duplicates and len(events) == 1:
                    published.repeats = (0,)  # A worker's backbone does not say which.
            done(published)

        self._backbone.append(batch, acknowledge)

    def publish_separately(
        self,
        events: Sequence[Event],
        done: Callable[[Published | FastsseError | list[Separate]], None],
    ) -> None:
        """As `publish`, for one event of each of several publishers; each counts as a publish.
        `done` receives an error if it is the same for all. If only some are refused, it receives a
        list with the position or the error of each, and what is published of one that was stored
        before. A refused append to a durable stream is not counted: it is published again by
        itself, which counts it."""
        # Within one batch, events with one number of a producer are one append.
        is_one = self._backbone.judges_each and not has_repeated_numbers(events)
        if len(events) > 1 and not is_one and not is_plain(events):
            self._publish_each(events, done)
            return

        def answered(outcome: Published | FastsseError) -> None:
            if isinstance(outcome, Conflict) and len(events) > 1:
                self._publish_each(events, done)
                return
            self._count_each(outcome, events)
            done(outcome)

        self.publish(events, answered)

    def _publish_each(
        self,
        events: Sequence[Event],
        done: Callable[[Published | FastsseError | list[Separate]], None],
    ) -> None:
        """Publishes events one by one, in order, because some may be refused."""
        outcomes: dict[int, Separate] = {}

        def publish(at: int, event: Event) -> None:
            def answered(outcome: Published | FastsseError) -> None:
                self._count_each(outcome, (event,))
                if isinstance(outcome, Published) and not outcome.repeats:
                    outcomes[at] = outcome.positions[0]
                else:
                    outcomes[at] = outcome
                if len(outcomes) == len(events):
                    done(_of_all([outcomes[place] for place in range(len(events))], events))

            self.publish((event,), answered)

        for at, event in enumerate(events):
            publish(at, event)

    def _count_each(self, outcome: Published | FastsseError, events: Sequence[Event]) -> None:
        """Makes the one count of a refused batch one of each publish."""
        if isinstance(outcome, Unavailable):
            asked = (event.directives for event in events)
            final = sum(one is None or one.stream is None for one in asked)
            self.publishes_refused[outcome.reason] += final - 1

    def delete_event(
        self,
        topic: str,
        event_id: str,
        done: Callable[[Published | FastsseError], None],
        check: Callable[[Sequence[str]], None] = lambda topics: None,
    ) -> None:
        """Deletes the data of the event of a topic with this id, in all its topics. Calls `done`
        once: with the control entry of the deletion, or with NotKept, Unavailable, or the error
        that `check` raised.

        Arguments:
            check: called with all topics of the event before anything changes.
        """

        def found(event: FoundEvent | FastsseError | None) -> None:
            if event is None:
                done(NotKept("id", f"The topic {topic} has no event with this id."))
            elif isinstance(event, FastsseError):
                done(event)
            else:
                try:
                    check(event.topics)
                except FastsseError as error:
                    done(error)
                    return
                self._erase(
                    Event.deletion(event.topics, event.position, event.event_id, event.private),
                    "event",
                    done,
                )

        self.streams.lookup.find(topic, event_id, found)

    def purge_topic(self, topic: str, done: Callable[[Published | FastsseError], None]) -> None:
        """Deletes the data of all events of a topic, also of those with more topics. `done` as in
        `delete_event`. The topic's state stays."""

        def found(has_events: bool | FastsseError) -> None:
            if isinstance(has_events, FastsseError):
                done(has_events)
            elif has_events:
                self._erase(Event.purge(topic), "topic", done)
            else:
                done(NotKept("topic", f"The topic {topic} has no events."))

        self.streams.lookup.has_events(topic, found)

    def _erase(
        self, control: Event, what: str, done: Callable[[Published | FastsseError], None]
    ) -> None:
        def erased(outcome: Published | FastsseError) -> None:
            if not isinstance(outcome, FastsseError):
                self.erasures[what] += 1
                log.info(
                    "Events were deleted.",
                    what=what,
                    topics=control.topics,
                    id=outcome.last.decode(),
                )
            done(outcome)

        self._publish((control,), erased)

    def allows(self, event: Event) -> bool:
        """Whether an event can be published without a check of its data, of a rate or by an
        interceptor, and its topics allow its type."""
        if self.interceptors is not None:
            return False
        if any(self.topics.rule(name).max_publish_rate for name in event.topics):
            return False
        return not self.topics.rules.restricts or self.topics.takes_any_data(event)

    def apply_rules(self, history: HistoryOptions) -> None:
        """Applies other `[[topics]]` to what is published and kept from now on; no stream ends.
        O(topics x rules)."""
        self.topics.rules.apply(history)
        self.history.apply_rules()
        self._rates.apply_rules()
        self._note_rules()
        self._backbone.apply_rules(history)

    def drain(self, window_s: float, *, refuse: bool = True) -> None:
        """Refuses new streams from now on, and publishes if `refuse`. Closes the open streams,
        spread over `window_s` seconds."""
        self.refuses = refuse
        self.streams.drain(window_s)

    def stop(self) -> None:
        """Passes nothing to the sender from now on, because it stops. Later commits of the backbone
        are acknowledged; there is no stream left for them."""
        self._is_stopped = True
        self.streams.abandon()

    def sweep(self, now_ms: int) -> bool:
        """Evicts events that are too old and forgets idle topics; the work of a call is bounded.

        Call it about once a second, and again after SWEEP_ON_S seconds when it returns True.
        """
        is_late = self.history.sweep(now_ms)
        is_late |= self.channels.sweep()
        self.streams.polls.sweep(time.monotonic())
        self._rates.sweep()
        if self.on_sweep is not None:
            self.on_sweep()
        # Last, because channels that have just become ready may have streams that search.
        return self.streams.sweep() or is_late

    def counters(self) -> dict[str, int]:
        """The counters of this part, under the names of the metrics."""
        counted = {
            "events_published": self.events_published,
            "history_events": self.history.events,
            "history_bytes": self.history.bytes,
            "memory_bytes": self._sender.memory_bytes,
            "topics": len(self.topics),
            "filters": self.channels.filters.count,
            "polls_waiting": self.streams.polls.waiting,
            "polls": self.streams.polls.answered,
            "filters_refused": self.channels.filters.refused,
            "replays": self.streams.replays,
            "replays_failed": self.streams.replays_failed,
            "repeated_resumes": self.streams.repeated_resumes,
            "losses": self.losses,
            "deleted_events": self.erasures["event"],
            "purged_topics": self.erasures["topic"],
            "positions_ahead_ms": max(0, position_ms(self.history.head) - self._now_ms()),
        }
        counted.update(self.topics.rules.counters())
        counted.update((f"refused_{why}", self.publishes_refused[why]) for why in PUBLISH_REASONS)
        counted.update((f"gaps_{why}", self.streams.gaps[why]) for why in GAP_REASONS)
        return counted

    def _objection(self, events: Sequence[Event]) -> FastsseError | None:
        """The error of a batch that can't be published now, or at all; else None."""
        why = self._obstacle(events)
        if why == "empty":
            return InvalidEvent("events", "a batch needs at least one event")
        if why == "size":
            return EventTooLarge(sizes(events)[0], self._event_limit_bytes)
        if why is not None:
            return _refused(why)
        if self.topics.rules.restricts and (wrong := self._against_rules(events)):
            return wrong
        return self._rates.objection(events) if self._rates.active else None

    def _note_rules(self) -> None:
        """Notes for publishes what the rules ask of them."""
        rules = self.topics.rules
        self._is_watched = self._rates.active or rules.hides
        self._is_restricted = rules.restricts

    def _against_rules(self, events: Sequence[Event]) -> InvalidEvent | None:
        check = self.topics.check
        for nth, event in enumerate(events, 1):
            if is_control(event):
                continue
            try:
                check(event)
            except InvalidEvent as error:
                if len(events) > 1:
                    error.members = {**error.members, "event": nth}
                return error
        return None

    def _counted(self, error: FastsseError) -> FastsseError:
        if isinstance(error, Unavailable):
            self.publishes_refused[error.reason] += 1
        elif isinstance(error, InterceptorFailed):
            self.publishes_refused["interceptor"] += 1
        elif isinstance(error, InvalidEvent) and error.counted_as is not None:
            self.publishes_refused[error.counted_as] += 1
        return error

    def _on_broken(self, reason: str, place: int) -> None:
        """The log of the backbone lost events, and continues after a place. All readers receive a
        `fastsse.gap` event; events before that place can't be resumed from any more."""
        self.losses += 1
        if self._is_stopped:
            return
        place = self.history.lose(place)
        self.streams.report_loss(place)
        log.warning("The log lost events.", reason=reason, place=format_position(place).decode())


def _with_ends(events: Sequence[Event]) -> tuple[list[Event], list[int]]:
    """Events, each followed by the end of its topics if it asks for that; and their places."""
    batch: list[Event] = []
    places = []
    for event in events:
        places.append(len(batch))
        batch.append(event)
        if event.directives is not None and event.directives.ends:
            batch.append(Event.end(event.topics, event.private))
    if len(batch) > len(events):
        batch[0] = with_count(batch[0], len(batch))
    return batch, places


def _of_all(outcomes: list[Separate], events: Sequence[Event]) -> Published | list[Separate]:
    """The result of events that were published one by one."""
    positions = [one for one in outcomes if isinstance(one, int)]
    return Published(positions, events) if len(positions) == len(outcomes) else outcomes


def _refused(reason: UnavailableReason) -> Unavailable:
    return Unavailable(reason, RETRY_AFTER_S[reason])
