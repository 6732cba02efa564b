"""What the hub keeps: topics, the log of each, the log of all, and eviction. Loop thread only."""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from fastsse._core import Frame, Sender, View
from fastsse.auth.rights import Rights
from fastsse.entries import Entry, Extras
from fastsse.evicted import Steps
from fastsse.hub.history import Selection
from fastsse.hub.resume.store_queries import QueryWaiter
from fastsse.hub.topics import Rule, Topics
from fastsse.hub.views import ChannelView
from fastsse.positions import TimeMarks

EVENT_COST_BYTES: int
"""What a kept event costs without its bytes: frame header, allocation, its places in two logs."""
TOPIC_COST_BYTES: int
"""What a topic with events costs without them."""
OWN_ID_COST_BYTES: int
"""What an own id costs, without its text."""
EXTRAS_COST_BYTES: int
"""What optional fields cost, without their bytes."""

def set_cuts(least: int, block: int) -> None:
    """For tests: has logs cut off a front of `least` places, and close holes of `block` places at
    once (64 and 32,768)."""

_Owners: TypeAlias = "Topic | tuple[Topic, ...]"
_Bytes = bytes

class Bounds:
    """What is kept of a topic, and what happens to streams that lag on it.

    `is_apart`: its events are private ones of the server. Their evictions are no gap for who reads
    everything without grants.
    `kept_events`, `kept_bytes`, `evicted_events`: counted by this process for topics of this rule.
    """

    events: int
    bytes: int
    age_ms: int
    policy: int
    is_apart: bool
    kept_events: int
    kept_bytes: int
    evicted_events: int

    def __init__(
        self, events: int, bytes: int, age_ms: int, policy: int, keep_last: int = 0
    ) -> None: ...

class Topic:
    """One topic: its number in the core, its rule, its log while an event of it is kept.

    `evicted_through` is the last place of which it may have lost events, `evicted_at` the reading
    of the history's clock of evictions when it did. `channels` is 0 when no channel gets it;
    `named` counts those that name it, and keep it alive by that, which a template that happens to
    match does not. `ended_at` is the position of its end, 0 while it is open, and `is_end_sent`
    says that the sender has it. `is_state_known`: the store was asked for an end that did not come
    down the log. `is_exempt`: no rule and no total evicts its events.
    """

    name: str
    number: int
    rule: Rule
    evicted_through: int
    evicted_at: int
    log: TopicLog | None
    channels: int
    named: int
    is_forgotten: bool
    ended_at: int
    is_end_sent: bool
    is_state_known: bool
    is_exempt: bool

    def __init__(self, name: str, number: int, rule: Rule, evicted_through: int) -> None: ...
    def channel_of(self, is_quiet: bool) -> int:
        """The number of the channel of this topic alone, without grants and view, whose streams
        receive control events or (quiet) none; -1: there is none."""

    def set_channel(self, is_quiet: bool, number: int) -> None:
        """Sets what `channel_of` returns."""

class Channel:
    """One distinct set of selectors, grants and view, and the number of streams that share it.
    Streams of a quiet channel receive no control events.

    `rights` are those of its first stream; all its streams have the same grants. None: no grants,
    so no private events. `waiting` are streams that can't begin before its templates have examined
    all topics; None when they have. `view` is None if every event is sent unchanged, else
    `core_view` is its native form, which who makes the channel sets.

    There may be one for each stream, so a channel of one topic makes its tuples when they are read.
    """

    number: int
    streams: int
    is_quiet: bool
    selectors: tuple[str, ...]
    topics: Selection
    rights: Rights | None
    view: ChannelView | None
    core_view: View | None
    waiting: list[QueryWaiter] | None

    def __init__(
        self,
        number: int,
        selectors: tuple[str, ...],
        topics: Selection,
        rights: Rights | None,
        *,
        is_quiet: bool = False,
        view: ChannelView | None = None,
    ) -> None: ...

def strictest(topics: tuple[Topic, ...]) -> int:
    """The lag policy of an event under several topics."""

class TopicLog:
    """The frames kept for one topic, oldest first.

    A list that is filled at the end and emptied at the front. A place is found by bisection. The
    emptied part is cut off when it is half of the list: O(1) an event in the long run.
    """

    frames: list[Frame]
    start: int
    bytes: int

    @property
    def kept(self) -> int:
        """Number of its frames."""

    def drop_first(self) -> Frame:
        """Drops the oldest frame and returns it."""

    def prepend(self, older: TopicLog) -> None:
        """Puts the frames of a log before these, which all lie after them. O(n)."""

    def after(self, position: int) -> Iterator[Frame]:
        """The frames after `position`, in order. O(log n) to begin."""

    def newest_first(self) -> Iterator[Frame]:
        """The frames backwards."""

class WholeLog:
    """Every event kept, once, in order, with the topics that it was published under.

    Most events leave from the front. One that leaves from the middle (its topic keeps less than
    others do) leaves a hole. Holes are closed a block at a time, so that no publish ever waits for
    a pass over the whole.
    """

    owners: list[_Owners | None]
    start: int
    holes: int

    def __len__(self) -> int:
        """Its places, those that are empty too."""

    def append(self, frame: Frame, owners: _Owners) -> None:
        """Adds the newest event."""

    def prepend(self, frames: list[Frame], owners: list[_Owners]) -> None:
        """Puts events before all others, which lie after them. O(n), as fast as lists are."""

    def first(self) -> tuple[int, _Owners] | None:
        """The oldest event kept: its position and topics."""

    def let_go(self, topic: Topic, position: int) -> bool:
        """Drops the event at `position`, which `topic` has just evicted, unless another of its
        topics keeps it; says whether it did. O(log n), mostly O(1)."""

    def after(self, position: int) -> Iterator[Frame]:
        """The frames after `position`, in order. O(log n) to begin."""

    def newest_first(self) -> Iterator[Frame]:
        """The frames backwards."""

    def owned_after(self, position: int) -> Iterator[tuple[Frame, _Owners]]:
        """The frames after `position` with their topics, in order. O(log n) to begin."""

    def owned_newest_first(self) -> Iterator[tuple[Frame, _Owners]]:
        """The same backwards."""

    def owners_of(self, position: int) -> _Owners:
        """The topics of the event kept at a position; none when there is none. O(log n)."""

class HistoryLog:
    """The part of `History` that every publish passes through.

    Arguments:
        topics: the topics that are alive, and their rules.
        total_bytes: the bound over all topics.
        start: the place before which nothing is kept.

    Attributes:
        topics: as given.
        exempt_bytes: what events of exempt topics cost, each once; they do not count for the total.
        head: the position of the newest event.
        public_head: the newest position that is no private event's.
        times: which time belongs to which position, where positions were ahead of the clock.
        events: how many are kept.
        bytes: what they cost, with what is needed to keep them.
        whole: the log of all.
        clock: counts evictions.
        evicted_at: the clock's reading when the newest event that left all topics was evicted.
        evicted_below: what left all topics later, from below it.
        evicted_apart: what left topics whose rules are apart, which the three before do not count.
        position_of: the positions of own ids; `own_id_at` the other way.
        extras_at: optional fields, by position.
    """

    topics: Topics
    exempt_bytes: int
    head: int
    public_head: int
    times: TimeMarks
    events: int
    bytes: int
    whole: WholeLog
    clock: int
    evicted_at: int
    evicted_below: Steps
    evicted_apart: Steps
    position_of: dict[_Bytes, int]
    own_id_at: dict[int, _Bytes]
    extras_at: dict[int, Extras]

    def __init__(self, topics: Topics, total_bytes: int, start: int) -> None: ...
    @property
    def evicted_from_all_through(self) -> int:
        """The newest place whose event left all topics."""

    def take(
        self,
        entries: Sequence[Entry],
        sender: Sender | None = None,
        heard_by_all: bool = False,
        describes: bool = False,
    ) -> None:
        """Keeps committed entries, evicts for them, and hands each on. Of control entries,
        `on_control` of the subclass does what they say, and those with a block are handed on where
        a view may ask for it. `on_reopen` is called when nothing is kept any more of a topic that
        had ended.

        O(entries and topics), and O(1) an evicted event. `Entries` cost the least.

        Arguments:
            entries: the newest, in order.
            sender: gets each as soon as it is kept, and is woken once; None for no one.
            heard_by_all: whether topics without channels of their own are handed on too.
            describes: whether channels with a view may get them: then topics' names and meta are
                handed on too.
        """

    def append(
        self,
        frame: Frame,
        topics: tuple[Topic, ...],
        own_id: _Bytes | None,
        extras: Extras | None = None,
    ) -> None:
        """Keeps the newest event under its topics, as their rules allow, and evicts for it."""

    def trim(self, topics: tuple[Topic, ...]) -> None:
        """Evicts what these topics have above their rules. O(evicted)."""

    def shorten(self, topic: Topic, limit: int) -> tuple[int, bool]:
        """Evicts at most `limit` events that the topic's rule does not keep; how many, and whether
        that was all. O(evicted)."""

    def fit(self) -> None:
        """Evicts the oldest events until the total is within its bound. O(evicted)."""

    def look_at_all_again(self) -> None:
        """Older events were added, which may go before those that rules spare."""

    def exempt(self, topic: Topic, rule: Bounds, is_exempt: bool) -> None:
        """Gives a topic a rule. An exempt one is evicted by no total, and does not count for it.
        O(events log n) where that changes."""

    def evict_oldest(self) -> None:
        """Evicts the oldest event of all from every topic that keeps it. Raises LookupError when
        there is none."""

    def blank(self, position: int) -> bool:
        """Empties the event at a place, in every topic that keeps it: its place, its own id and its
        key stay, so there is no gap. Returns whether there was one. O(topics log n)."""

    def purge(self, topic: Topic, position: int) -> int:
        """As `blank`, of all events of a topic up to a place, also those that have other topics
        too. Returns how many. O(n log n)."""

    def evict_through(self, topic: Topic, position: int) -> None:
        """Evicts the events of a topic up to a place. O(evicted)."""

    def sweep_age(self, age_ms: int, after: int, through: int, limit: int) -> tuple[int, int]:
        """Evicts the events after one place and up to another whose topics keep them for `age_ms`.

        Returns how many were looked at, of at most `limit`, and through where.
        """

    def is_unchanged(self, topics: tuple[Topic, ...], position: int, clock: int) -> bool:
        """Whether these topics have no entry after a place, and evicted nothing after this reading
        of the clock. O(topics)."""

    def tick(self) -> int:
        """Moves the clock by one and returns its reading."""

    def note_gone(self, position: int) -> None:
        """Notes that events up to a place left all their topics with the clock's last reading."""

    def index(self, own_id: _Bytes, position: int) -> None:
        """Has an own id find the event at a position, unless an earlier one has it."""

    def keep_extras(self, position: int, extras: Extras) -> None:
        """Keeps the optional fields of the event at a position."""
