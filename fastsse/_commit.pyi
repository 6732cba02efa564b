"""The way of a batch that is committed within one call. Loop thread only."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from fastsse.backbone import Deliver
from fastsse.backbone.judge import TopicStates
from fastsse.backbone.lead import LeadLog
from fastsse.backbone.stream_table import StreamTable
from fastsse.entries import Entry, EventBatch, KeyedBatch
from fastsse.events import Event
from fastsse.interceptors import Interceptors
from fastsse.positions import Clock

class MemoryLog:
    """Gives positions and hands batches on. Base of `MemoryBackbone`, which implements
    `_append_asked`.

    Arguments:
        clock: gives the positions.
        lead: logs how far they are ahead of the clock.
    """

    states: TopicStates | None
    streams: StreamTable
    _deliver: Deliver | None
    _clock: Clock

    def __init__(self, clock: Clock, lead: LeadLog) -> None: ...
    def append_now(self, batch: EventBatch | KeyedBatch) -> Sequence[int] | None:
        """As `Backbone`. O(events)."""

    def hand_on(self, events: Sequence[Event], positions: Sequence[int]) -> Sequence[int]:
        """Encodes and delivers events that have their positions, and returns these. O(events)."""

class PublishPath:
    """What a publish passes in a process. Base of `Hub`, which implements `_against_rules`."""

    interceptors: Interceptors | None
    on_entries: Callable[[Sequence[Entry]], None] | None
    on_content: Callable[[Sequence[Entry]], None] | None
    on_reached: Callable[[], None] | None
    events_published: int
    entries_seen: int
    refuses: bool
    _is_watched: bool
    _is_restricted: bool
    _is_stopped: bool
    _memory_limit_bytes: int
    _event_limit_bytes: int
    _sender: Any
    _polls: Any

    def publish_now(self, batch: EventBatch | KeyedBatch) -> Sequence[int] | None:
        """As `Hub.publish_separately`, if all of it is committed within the call, and nothing is
        refused or known; returns the positions. Else returns None, and nothing is done."""

    def _obstacle(
        self, events: Sequence[Event]
    ) -> Literal["empty", "draining", "queue", "size", "memory"] | None:
        """Why a batch can't be published now, or at all, whatever the rules say."""

    def _deliver(self, entries: Sequence[Entry]) -> None:
        """Keeps committed entries in the history, and passes each to the channels of its topics.
        O(entries and topics); the number of streams has no effect."""
