"""What readers of a history get of it: hidden, expired and deleted events are as if they were not
there, and no read looks at more than its bound."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given as given_by
from hypothesis import settings
from hypothesis import strategies as st

from fastsse._core import load_frame
from fastsse._hub import EVENT_COST_BYTES
from fastsse.auth.rights import Rights
from fastsse.config import HistoryOptions, TopicRule
from fastsse.directives import NO_NOTICE, directives_of
from fastsse.entries import Entry, Extras, encode_entries
from fastsse.events import Event
from fastsse.hub import history as module
from fastsse.hub.backfill import Evictions
from fastsse.hub.history import Erased, History, Selection, sees_private
from fastsse.hub.templates import Templates, WantedTopics
from fastsse.hub.topics import Rules, Topics
from fastsse.positions import format_position, position_at

START_MS = 1_000_000
START = position_at(START_MS)
GRANTED = Rights(subscribe=["a"])
OTHERS = Rights(subscribe=["b"])
TTL_MS = 5_000


class Channel:
    """Of a template."""

    number = 1


class Kept:
    """A history of events: the n-th lies at START + n."""

    def __init__(self, *rules: TopicRule, **options: object) -> None:
        history_options = HistoryOptions(topics=rules, **options)  # type: ignore[arg-type]
        self.topics = Topics(Rules(history_options, "disconnect"), START)
        self.history = History(self.topics, history_options.history_total, START)
        self.history.now_ms = lambda: self.now_ms
        self.now_ms = START_MS
        self.templates = Templates(self.topics)
        self.topics.on_new = lambda topic: self.templates.look_at(topic) and None

    def add(self, *topics: str, ttl: bool = False, **given: object) -> int:
        """Appends an event; returns its position."""
        asked = directives_of(ttl=TTL_MS / 1000) if ttl else None
        event = Event(topics, "x", directives=asked, **given)  # type: ignore[arg-type]
        position = self.history.head + 1
        self.history.take(encode_entries([position], [event], START_MS))
        return position

    def control(self, text: bytes, *topics: str) -> int:
        """Appends a control entry; returns its position."""
        position = self.history.head + 1
        frame = load_frame(NO_NOTICE, position, False, None, False)
        self.history.take([Entry(position, topics, None, frame, Extras(control=text))])
        return position

    def named(self, *topics: str) -> Selection:
        return tuple(map(self.topics.intern, topics))

    def template(self, text: str, *topics: str) -> WantedTopics:
        matching = self.templates.select(text, Channel())
        matching.look(matching.left)
        return WantedTopics(
            tuple(map(self.topics.intern, topics)), (matching,), self.templates.numbered
        )

    def read(self, selection: Selection, after: int, rights: Rights | None) -> list[int]:
        return [frame.position for frame in self.history.page(selection, after, rights=rights)[0]]

    def newest(
        self, selection: Selection, count: int, rights: Rights | None = None
    ) -> tuple[dict[str, list[int]], bool]:
        found, is_enough, _ = self.history.newest_of_each(selection, count, rights)
        places = {name: [frame.position for frame in frames] for name, frames in found.items()}
        return places, is_enough


@dataclass
class Some:
    """A public event, a private one, one that expires, one that is deleted, a control entry, and a
    public one."""

    kept: Kept
    first: int
    private: int
    brief: int
    last: int

    @classmethod
    def made(cls) -> "Some":
        kept = Kept()
        first = kept.add("a")
        private = kept.add("a", private=True)
        brief = kept.add("a", ttl=True)
        deleted = kept.add("a")
        kept.history.blank(deleted)
        kept.control(b'{"op":"later"}', "a")
        last = kept.add("a")
        return cls(kept, first, private, brief, last)


SELECTIONS: list[Callable[[Kept], Selection]] = [
    lambda kept: None,
    lambda kept: kept.named("a"),
    lambda kept: kept.named("a", "b"),
    lambda kept: kept.template("{x}"),
]


@pytest.mark.parametrize("selected", SELECTIONS)
def test_a_page_and_a_span_have_what_the_reader_may_see_at_that_time(
    selected: Callable[[Kept], Selection],
) -> None:
    some = Some.made()
    kept, history = some.kept, some.kept.history
    selection = selected(kept)
    for rights, is_granted in ((GRANTED, True), (OTHERS, False), (None, False)):
        for passed_ms, is_alive in ((TTL_MS - 1, True), (TTL_MS, False)):
            kept.now_ms = START_MS + passed_ms
            wanted = [
                some.first,
                *([some.private] if is_granted else []),
                *([some.brief] if is_alive else []),
                some.last,
            ]
            page = history.page(selection, START, rights=rights)
            seen = [frame.position for frame in page.frames if frame.events]
            assert (seen, page.through, page.is_last) == (wanted, history.head, True)
            between = history.between(selection, some.first, some.last - 1, rights)
            assert [one.position for one in between if one.events] == wanted[1:-1]
            until = history.between(selection, some.first, some.last, rights)
            assert [one.position for one in until if one.events] == wanted[1:]


@pytest.mark.parametrize("selected", SELECTIONS)
def test_the_newest_events_are_counted_without_those_that_are_not_shown(
    selected: Callable[[Kept], Selection],
) -> None:
    some = Some.made()
    kept, history = some.kept, some.kept.history
    selection = selected(kept)
    assert history.before_newest(selection, 1) == (some.last - 1, True)
    assert history.before_newest(selection, 2) == (some.brief - 1, True)
    assert history.before_newest(selection, 3) == (some.first - 1, True)
    assert history.before_newest(selection, 3, GRANTED) == (some.private - 1, True)
    assert history.before_newest(selection, 4, OTHERS) == (some.first - 1, False)
    assert history.before_newest(selection, 4, GRANTED) == (some.first - 1, True)
    kept.now_ms += TTL_MS
    assert history.before_newest(selection, 2) == (some.first - 1, True)
    assert history.before_newest(selection, 3) == (some.first - 1, False)
    is_named = isinstance(selection, tuple) and len(selection) == 1
    assert kept.newest(selection, 2) == ({"a": [some.last, some.first]}, is_named)
    assert kept.newest(selection, 2, GRANTED) == ({"a": [some.last, some.private]}, is_named)
    assert kept.newest(selection, 3, OTHERS) == ({"a": [some.last, some.first]}, False)
    kept.now_ms -= TTL_MS
    assert kept.newest(selection, 2) == ({"a": [some.last, some.brief]}, is_named)


def test_a_page_is_at_most_so_many_bytes_but_one_event() -> None:
    kept = Kept()
    added = [kept.add("a") for _ in range(3)]
    size = kept.history.page(None, START).frames[0].size
    for limit_bytes, count in ((0, 1), (size, 1), (2 * size - 1, 1), (2 * size, 2), (9 * size, 3)):
        page = kept.history.page(None, START, limit_bytes)
        assert [frame.position for frame in page.frames] == added[:count]
        assert (page.through, page.is_last) == (added[count - 1], count == 3)


def test_a_look_ends_after_so_many_hidden_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEFT_OUT_MAX", 3)
    kept = Kept()
    first = kept.add("a")
    hidden = [kept.add("a", private=True) for _ in range(4)]
    last = kept.add("a")
    history, topics = kept.history, kept.named("a")
    page = history.page(topics, START)
    assert [one.position for one in page.frames] == [first]
    assert (page.through, page.is_last) == (hidden[2], False)
    page = history.page(topics, hidden[2])
    assert [one.position for one in page.frames] == [last]
    assert (page.through, page.is_last) == (last, True)
    # As if there were as many: behind the hidden ones nothing is known.
    assert history.before_newest(topics, 2) == (last - 1, True)
    assert kept.newest(topics, 2) == ({"a": [last]}, False)
    monkeypatch.setattr(module, "LEFT_OUT_MAX", 5)
    assert history.before_newest(topics, 2) == (first - 1, True)
    assert kept.newest(topics, 2) == ({"a": [last, first]}, True)


def test_events_that_are_shown_do_not_end_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEFT_OUT_MAX", 3)
    kept = Kept()
    added = [kept.add("a", private=n in (2, 4), ttl=n == 6) for n in range(10)]
    kept.now_ms += TTL_MS
    shown = [place for n, place in enumerate(added) if n not in (2, 4, 6)][::-1]
    assert kept.newest(kept.named("a"), 5) == ({"a": shown[:5]}, True)
    assert kept.newest(kept.named("a"), 6) == ({"a": shown[:5]}, False), "the third ends it"


def test_a_page_ends_after_so_many_expired_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEFT_OUT_MAX", 3)
    kept = Kept()
    brief = [kept.add("a", ttl=True) for _ in range(2)] + [kept.add("a", private=True)]
    last = kept.add("a")
    kept.now_ms += TTL_MS
    page = kept.history.page(kept.named("a"), START)
    assert (page.frames, page.through, page.is_last) == ([], brief[-1], False)
    page = kept.history.page(kept.named("a"), page.through)
    assert [one.position for one in page.frames] == [last]
    assert page.is_last


def test_it_is_known_whether_a_snapshot_has_every_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept()
    for name in ("t/1", "t/2", "other", "t/3", "t/1"):
        kept.add(name)
    kept.topics.intern("t/empty")

    def has_all(selection: Selection) -> bool:
        return kept.history.newest_of_each(selection, 1).is_whole

    for most, of_everything, of_template in ((5, True, True), (4, True, True), (3, False, True)):
        monkeypatch.setattr(module, "SNAPSHOT_TOPICS_MAX", most)
        assert has_all(None) is of_everything
        assert has_all(kept.template("t/{n}")) is of_template
    monkeypatch.setattr(module, "SNAPSHOT_TOPICS_MAX", 2)
    assert not has_all(kept.template("t/{n}"))
    assert has_all(kept.named("t/1", "t/2", "t/3"))
    monkeypatch.setattr(module, "SNAPSHOT_TOPICS_MAX", 4)
    monkeypatch.setattr(module, "SNAPSHOT_SCAN_MAX", 2)
    assert not has_all(None)


def test_a_snapshot_reads_fewer_events_of_busy_topics_when_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = Kept()
    added = {name: [kept.add(name) for _ in range(count)] for name, count in (("a", 9), ("b", 1))}
    for most, of_a in ((10, 9), (9, 4), (5, 4), (4, 2), (2, 1), (1, 1), (0, 1)):
        monkeypatch.setattr(module, "SNAPSHOT_READ_MAX", most)
        for selection in (None, kept.template("{x}"), kept.named("a", "b")):
            found, _, is_whole = kept.history.newest_of_each(selection, 9)
            places = {name: [one.position for one in frames] for name, frames in found.items()}
            assert places == {"a": added["a"][::-1][:of_a], "b": added["b"]}
            assert is_whole is (of_a == 9)


def test_a_snapshot_of_very_many_topics_has_those_of_the_newest_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = Kept()
    places = {name: kept.add(name) for name in ("t/1", "t/2", "other", "t/3")}
    both = kept.add("t/1", "u/1")
    everything = {"other": [places["other"]], "t/1": [both], "t/2": [places["t/2"]]}
    everything |= {"t/3": [places["t/3"]], "u/1": [both]}
    matching = {name: [one] for name, [one] in everything.items() if name.startswith("t/")}
    monkeypatch.setattr(module, "SNAPSHOT_TOPICS_MAX", 5)
    assert kept.newest(None, 1) == (everything, False)
    monkeypatch.setattr(module, "SNAPSHOT_TOPICS_MAX", 4)
    assert kept.newest(None, 1) == (
        {name: one for name, one in everything.items() if name != "t/2"},
        False,
    )
    monkeypatch.setattr(module, "SNAPSHOT_TOPICS_MAX", 3)
    assert kept.newest(kept.template("t/{n}"), 1) == (matching, False)
    monkeypatch.setattr(module, "SNAPSHOT_TOPICS_MAX", 2)
    # The newest event also has a topic that is not asked for.
    busiest = {"t/1": [both], "t/3": [places["t/3"]]}
    assert kept.newest(kept.template("t/{n}"), 1) == (busiest, False)
    # A topic that is named alone is looked at, however many there are.
    assert kept.newest(kept.named("t/2", "t/3", "other"), 1) == (
        {name: [places[name]] for name in ("t/2", "t/3", "other")},
        True,
    )
    monkeypatch.setattr(module, "SNAPSHOT_SCAN_MAX", 0)
    assert kept.newest(None, 1) == ({"t/1": [both], "u/1": [both]}, False)
    monkeypatch.setattr(module, "SNAPSHOT_SCAN_MAX", 1)
    monkeypatch.setattr(module, "SNAPSHOT_TOPICS_MAX", 4)
    found, _ = kept.newest(None, 1)
    assert set(found) == {"t/1", "u/1", "t/3"}


def test_a_template_of_very_many_topics_is_read_from_the_log_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = Kept()
    added = [kept.add(*names) for names in (("t/1",), ("x",), ("t/2", "x"), ("t/1", "t/3"), ("x",))]
    wanted = kept.template("t/{n}")
    for most in (2, 3, 4):
        monkeypatch.setattr(module, "MERGED_MAX", most)
        assert kept.read(wanted, START, None) == [added[0], added[2], added[3]]
        assert kept.read(wanted, added[0], None) == [added[2], added[3]]
        assert kept.history.before_newest(wanted, 2) == (added[2] - 1, True)


def test_an_entry_and_an_event_are_found_at_their_place_alone() -> None:
    kept = Kept(history_events=2)
    gone = kept.add("a")
    kept.add("a")
    at = kept.add("a", "b", id="mine", meta={"x": 1})
    history = kept.history
    for place in (gone, at + 1, START):
        assert history.entry_at(place) is None
        assert history.event_at(place) is None
    entry, event = history.entry_at(at), history.event_at(at)
    assert entry is not None
    assert event is not None
    assert (entry.position, entry.topics, entry.own_id) == (at, ("a", "b"), b"mine")
    assert (event.frame.position, event.topics, event.meta) == (at, ("a", "b"), b'{"x":1}')
    first = history.event_at(at - 1)
    assert first is not None
    assert (first.topics, first.meta) == (("a",), None)
    assert [one.frame.position for one in history.described([event.frame, first.frame])] == [
        at,
        at - 1,
    ]
    assert history.may_read(at, None)
    assert history.may_read(at + 1, None)


def test_a_topic_has_events_until_the_last_of_them_is_deleted() -> None:
    kept = Kept()
    history = kept.history
    assert not history.has_events("a")
    assert history.last_of("a") == 0
    kept.topics.intern("a")
    assert not history.has_events("a")
    assert history.last_of("a") == 0
    first, second = kept.add("a"), kept.add("a", "b")
    kept.control(b'{"op":"later"}', "a")
    assert history.has_events("a")
    assert (history.last_of("a"), history.last_of("b")) == (second, second)
    history.blank(first)
    assert history.has_events("a")
    history.blank(second)
    assert not history.has_events("a")
    # A deleted event is the newest one still: a condition that names it holds.
    assert history.last_of("a") == second
    kept.control(b'{"op":"later"}', "c")
    assert history.last_of("c") == 0
    assert not history.has_events("c")


def test_the_newest_place_to_show_is_a_private_one_for_who_has_grants() -> None:
    kept = Kept()
    public = kept.add("a")
    private = kept.add("b", private=True)
    history = kept.history
    assert history.head_for(GRANTED) == history.head == private
    assert history.head_for(None) == history.head_for(Rights()) == history.public_head == public
    assert [sees_private(one) for one in (None, Rights(), GRANTED)] == [False, False, True]
    assert [history.may_read(private, one) for one in (None, GRANTED, OTHERS)] == [
        False,
        False,
        True,
    ]


def test_events_that_another_process_is_sending_count_as_evicted() -> None:
    kept = Kept()
    history = kept.history
    history.expect(START + 5)
    assert (history.head, history.begins) == (START + 5, START + 5)
    for selected in SELECTIONS:
        selection = selected(kept)
        assert history.evicted_through(selection) == START + 5
        assert history.evicted(selection, START).through == START + 5
        assert history.evicted(selection, START + 5).through == 0
    kept.add("a")
    assert history.evictions().by_topic == {"a": START + 5, "b": START + 5}
    assert (history.evictions().of_all, history.evictions().forgotten_through) == (
        START + 5,
        START + 5,
    )
    assert history.expected_through == START + 5


def test_evictions_of_another_history_are_of_live_and_other_topics() -> None:
    kept = Kept()
    first, second = kept.add("a"), kept.add("a")
    b = kept.add("b")
    history = kept.history
    history.evict(Evictions({"a": first, "never": START + 2}, first, START + 1))
    assert kept.read(None, START, None) == [second, b]
    assert history.evicted_through(kept.named("a")) == first
    assert history.evicted_through(kept.named("b")) == START
    assert history.evicted_through(kept.named("never")) == START + 2
    assert history.evicted_through(kept.named("new")) == START + 1
    assert history.evicted_through(None) == first
    history.evict(Evictions({}, START, START))
    assert history.evicted_through(kept.named("newer")) == START + 1
    assert history.evicted_through(None) == first


def test_a_reader_of_all_topics_learns_each_eviction_after_those_that_it_knows() -> None:
    kept = Kept(TopicRule(match="none", history_events=0), history_events=1)
    history = kept.history
    first, second = kept.add("a"), kept.add("b")
    known = history.clock
    assert history.evicted(None, START).since(known) == 0
    # Newer and older ones by turns.
    for topic, place in (("none", START + 3), ("a", first), ("none", START + 5), ("b", second)):
        kept.add(topic)
        assert history.evicted(None, START).since(known) == place
        known = history.clock
        assert history.evicted(None, START).since(known) == 0


def test_a_loss_evicts_everything_and_is_before_all_that_comes() -> None:
    kept = Kept()
    added = [kept.add("a"), kept.add("b", private=True)]
    history = kept.history
    wanted = kept.template("{x}")
    assert history.lose(added[0]) == added[1]
    assert (history.events, history.bytes, history.lost_through) == (0, 0, added[1])
    later = added[1] + 10
    assert history.lose(later) == history.head == history.public_head == later
    for selection in (None, wanted, kept.named("a"), kept.named("new")):
        assert history.evicted_through(selection) == later
        assert history.evicted(selection, added[1]).since(history.clock - 1) in (0, later)
        assert history.evicted(selection, added[1]).through == later
    kept.add("a")
    assert len(kept.read(wanted, later, None)) == 1


# -- control entries ----------------------------------------------------------------------------


def test_topics_that_ended_are_counted_until_they_are_open_again() -> None:
    kept = Kept()
    history, calls = kept.history, list[tuple[str, str]]()
    history.on_ended = lambda topic: calls.append(("ended", topic.name))
    history.on_reopened = lambda topic: calls.append(("open", topic.name))
    assert (history.ended_count, history.lost_through) == (0, 0)
    kept.add("a")
    first = kept.control(b'{"op":"end"}', "a", "b")
    assert (history.ended_count, calls) == (2, [("ended", "a"), ("ended", "b")])
    assert [history.ended_at(name) for name in ("a", "b", "c")] == [first, first, 0]
    second = kept.control(b'{"op":"end"}', "a")
    assert (history.ended_count, len(calls)) == (2, 2)
    assert [history.ended_at(name) for name in ("a", "b")] == [second, first]
    history.evict_through(kept.topics.intern("a"), first)
    assert history.ended_at("a") == second, "an entry of it is kept"
    history.evict_through(kept.topics.intern("a"), second)
    assert (history.ended_count, history.ended_at("a")) == (1, 0)
    assert calls[2:] == [("open", "a")]


def test_a_purge_is_of_events_of_its_topic_up_to_its_place() -> None:
    kept = Kept()
    history, erased = kept.history, list[Erased]()
    history.on_erased = erased.append
    first, both, last = kept.add("a"), kept.add("a", "b"), kept.add("a")
    other = kept.add("b")
    through = format_position(both)
    kept.control(b'{"op":"purge","at":"%b"}' % through, "a")
    assert erased == [Erased(both, "a")]
    frames = history.page(None, START).frames
    assert [frame.position for frame in frames if frame.events] == [last, other]
    kept.control(b'{"op":"delete","at":"%b"}' % format_position(other), "b")
    assert erased[1:] == [Erased(other, None)]
    assert not history.has_events("b")
    at = kept.control(b'{"op":"purge"}', "a", "b")
    assert erased[2:] == [Erased(at, "a"), Erased(at, "b")]
    assert not history.has_events("a")
    entries = {entry.position: entry for entry in history.entries(START)}
    covered = {place for place, entry in entries.items() if Erased(both, "a").covers(entry)}
    assert covered == {first, both}


def test_the_key_of_each_event_is_passed_on_with_its_place() -> None:
    kept = Kept()
    asked = directives_of(key="mine")
    event = Event("a", "x", directives=asked)
    kept.history.take(encode_entries([START + 1], [event], START_MS))
    keys: list[tuple[int, bytes]] = []
    kept.history.on_key = lambda place, key: keys.append((place, key))
    kept.add("a", meta={"x": 1})
    kept.history.take(encode_entries([START + 3], [event], START_MS))
    assert keys == [(START + 3, kept.history.extras_at[START + 3].key)]


def test_an_id_names_its_position_or_the_event_of_a_publisher() -> None:
    kept = Kept()
    place = kept.add("a", id="mine")
    history = kept.history
    assert history.place_of_id(b"mine") == place
    assert history.place_of_id(b"other") is None
    assert history.place_of_id(format_position(START + 9)) == START + 9


@pytest.mark.parametrize("text", ["mine", " mine", "mine ", " mine ", "\tmine", "m"])
def test_an_id_is_found_as_a_header_brings_it_back(text: str) -> None:
    kept = Kept()
    place = kept.add("a", id=text)
    assert kept.history.find(text.strip().encode()) == place
    assert kept.history.find(text.encode()) == place


def test_evictions_of_events_about_subscriptions_concern_readers_with_grants_alone() -> None:
    kept = Kept(history_events=1)
    topic = "/.well-known/mercure/subscriptions/a/b"
    first = kept.add(topic, private=True)
    kept.add("a")
    kept.add(topic, private=True)
    history = kept.history
    for has_grants, through in ((True, first), (False, START)):
        assert history.evicted_through(None, has_grants) == through
        assert history.evicted(None, START, has_grants).through == (first if has_grants else 0)
    # Of these topics it is the eviction of each.
    assert history.evicted_through(kept.named(topic)) == first


def test_entries_for_another_process_are_at_most_so_many_bytes_but_one() -> None:
    kept = Kept()
    added = [kept.add("a") for _ in range(4)]
    sizes = [entry.frame.size for entry in kept.history.entries(START)]
    for limit_bytes, count in ((0, 1), (sizes[0], 1), (sum(sizes[:2]), 2), (sum(sizes), 4)):
        found = kept.history.entries(START, limit_bytes)
        assert [entry.position for entry in found] == added[:count]
    assert kept.history.entries(added[-1]) == []


# -- events of another process ------------------------------------------------------------------


def handed_over(kept: Kept, events: list[Event], evictions: Evictions) -> None:
    """The first events come from another process, behind those that are here."""
    older = kept.history.older()
    older.add(encode_entries(range(START + 1, START + 1 + len(events)), events, START_MS))
    kept.history.prepend(older, evictions)
    older.release()


def test_a_deletion_that_came_first_is_of_the_events_that_follow_it() -> None:
    kept = Kept()
    kept.history.expect(START + 2)
    kept.control(b'{"op":"delete","at":"%b"}' % format_position(START + 1), "a")
    handed_over(kept, [Event("a", "deleted"), Event("a", "x")], Evictions({}, START, START))
    frames = kept.history.page(None, START).frames
    assert [frame.position for frame in frames if frame.events] == [START + 2]


def test_the_newest_public_event_may_be_one_of_another_process() -> None:
    for are_private, newest in (((False, True), 1), ((True, True), 0), ((True, False), 2)):
        kept = Kept()
        kept.history.expect(START + 2)
        kept.add("a", private=True)
        older = [Event("a", "x", private=one) for one in are_private]
        handed_over(kept, older, Evictions({}, START, START))
        assert kept.history.public_head == START + newest
    kept = Kept()
    kept.history.expect(START + 2)
    public = kept.add("a")
    handed_over(kept, [Event("a", "x")] * 2, Evictions({}, START, START))
    assert kept.history.public_head == public


def test_events_that_their_topic_evicted_on_their_way_are_gone() -> None:
    kept = Kept()
    kept.history.expect(START + 3)
    events = [Event("a", "x", id="mine"), Event("a", "x"), Event("b", "x")]
    handed_over(kept, events, Evictions({"a": START + 2}, START, START))
    assert kept.read(None, START, None) == [START + 3]
    assert kept.history.find(b"mine") is None
    assert kept.history.evicted_through(None) == START + 2
    assert kept.history.evicted_through(kept.named("b")) == START


def test_a_topic_that_became_a_durable_stream_meanwhile_counts_as_one_with_its_older_events() -> (
    None
):
    kept = Kept()
    history = kept.history
    history.keeps_streams = True
    history.expect(START + 2)
    kept.control(b'{"op":"stream-create"}', "s")
    handed_over(kept, [Event("s", "x"), Event("a", "x")], Evictions({}, START, START))
    topic = kept.topics.intern("s")
    assert topic.is_exempt
    assert history.exempt_bytes == topic.log.bytes
    kept.control(b'{"op":"stream-drop"}', "s")
    assert history.exempt_bytes == 0


def test_events_of_another_process_stay_within_the_bound_of_all() -> None:
    kept = Kept(history_total=4_000)
    kept.history.expect(START + 5)
    big = [Event(f"t/{n}", "x" * 1_000) for n in range(5)]
    handed_over(kept, big, Evictions({}, START, START))
    assert 0 < kept.history.bytes <= 4_000
    assert kept.read(None, START, None) == [START + 4, START + 5]


def test_events_of_another_process_are_evicted_before_newer_ones_that_were_looked_at() -> None:
    kept = Kept(history_total=4_000)
    kept.history.expect(START + 2)
    added = [kept.add(f"new/{n}") for n in range(12)]
    before = kept.read(None, START, None)
    assert 0 < len(before) < len(added)
    handed_over(kept, [Event("old", "x"), Event("old", "x")], Evictions({}, START, START))
    assert kept.read(None, START, None) == before


def test_what_the_other_forgot_counts_as_evicted_of_topics_that_live_here() -> None:
    kept = Kept()
    kept.history.expect(START + 5)
    for name in ("known", "forgotten"):
        kept.add(name)
    handed_over(kept, [], Evictions({"known": START + 1}, START + 4, START + 3))
    for name, through in (("known", START + 1), ("forgotten", START + 3), ("new", START + 3)):
        assert kept.history.evicted_through(kept.named(name)) == through
    assert kept.history.evicted_through(None) == START + 4


def test_no_more_of_what_rules_keep_is_evicted_than_the_total_needs() -> None:
    kept = Kept(TopicRule(match="k/*", keep_last=2), history_total=6_000)
    history = kept.history
    for n in range(40):
        kept.add(f"k/{n % 10}")
        kept.add("other")
        assert history.bytes <= 6_000
        if n > 10:
            assert history.bytes > 4_500
    found, _ = kept.newest(kept.template("k/{n}"), 2)
    assert all(len(places) <= 2 for places in found.values())
    assert list(kept.newest(kept.named("other"), 9)[0].values()) == [], "it goes first"


@pytest.mark.parametrize("is_deleted", [False, True])
def test_what_is_gone_counts_no_more(is_deleted: bool) -> None:
    kept = Kept()
    history = kept.history
    for given in ({"meta": {"x": 1}}, {"directives": directives_of(key="mine")}, {"id": "own"}):
        place = kept.add("a", "b")
        history.take(encode_entries([place + 1], [Event("a", "x", **given)], START_MS))  # type: ignore[arg-type]
        if is_deleted:
            assert history.blank(place + 1)
    for name in ("a", "b"):
        history.evict_through(kept.topics.intern(name), history.head)
    assert (history.bytes, history.events, history.exempt_bytes) == (0, 0, 0)


def test_what_was_kept_and_evicted_is_counted_by_rule() -> None:
    kept = Kept(TopicRule(match="k/*", history_events=1))
    for topics in (("k/1",), ("k/1", "k/2"), ("other",)):
        kept.add(*topics)
    (frame, *_) = kept.history.page(kept.named("other"), START).frames
    counted = kept.topics.rules.counters()
    assert counted == {
        "topic_rule_events_default": 1,
        "topic_rule_bytes_default": frame.size,
        "topic_rule_evicted_default": 0,
        "topic_rule_events_k/*": 3,
        "topic_rule_bytes_k/*": 3 * frame.size,
        "topic_rule_evicted_k/*": 1,
    }


def test_a_deletion_says_whether_there_was_an_event() -> None:
    kept = Kept(history_events=3)
    history = kept.history
    gone, first, both, last = kept.add("a"), kept.add("a"), kept.add("a", "b"), kept.add("a")
    assert [history.blank(place) for place in (gone, last + 1, START)] == [False] * 3
    assert history.blank(first)
    assert not history.blank(first), "it is blank already"
    topic = kept.topics.intern("a")
    assert history.purge(topic, both) == 1
    assert history.purge(topic, last) == 1
    assert history.purge(topic, last) == 0
    assert history.purge(kept.topics.intern("never"), last) == 0
    assert not history.has_events("b")


def test_a_durable_stream_does_not_lift_the_bound_of_what_other_rules_keep() -> None:
    kept = Kept(TopicRule(match="k/*", keep_last=1), history_total=5_000)
    history = kept.history
    history.keeps_streams = True
    kept.control(b'{"op":"stream-create"}', "old")
    both = kept.add("old", "k/both")
    for n in range(20):
        kept.add(f"k/{n}")
        if n == 10:
            kept.control(b'{"op":"stream-create"}', "new")
            kept.add("new")
        assert history.bytes - history.exempt_bytes <= 5_000
    assert kept.read(kept.named("old"), START, None)[-1] == both
    assert kept.read(kept.named("k/both"), both - 1, None) == []
    found, _ = kept.newest(kept.template("k/{n}"), 1)
    assert 3 < len(found) < 10
    assert [*found] == [f"k/{n}" for n in range(20 - len(found), 20)]
    assert len(kept.read(kept.named("new"), START, None)) == 2
    # Content of a stream that is deleted makes room; then the others' oldest go on to be evicted.
    kept.control(b'{"op":"stream-drop"}', "old")
    for n in range(20):
        kept.add(f"k/{n}", "k/again")
        assert history.bytes - history.exempt_bytes <= 5_000
    found, _ = kept.newest(kept.template("k/{n}"), 1)
    assert "k/19" in found
    assert "k/again" in found


def test_a_loss_evicts_durable_streams_too() -> None:
    kept = Kept()
    kept.history.keeps_streams = True
    kept.control(b'{"op":"stream-create"}', "stream")
    kept.add("stream")
    kept.history.lose(kept.history.head)
    assert (kept.history.events, kept.history.exempt_bytes) == (0, 0)


def test_an_event_opens_a_topic_whose_end_only_the_store_knew() -> None:
    kept = Kept()
    topic, calls = kept.topics.intern("a"), list[str]()
    kept.history.on_reopened = lambda topic: calls.append(topic.name)
    kept.history.set_ended(topic, START)
    kept.control(b'{"op":"later"}', "a")
    assert (calls, topic.ended_at) == ([], START), "no event"
    topic = kept.topics.intern("b")
    kept.history.set_ended(topic, START)
    assert kept.history.ended_count == 2
    kept.add("b")
    assert (calls, topic.ended_at, kept.history.ended_count) == (["b"], 0, 1)


def test_what_was_deleted_of_a_durable_stream_counts_no_more() -> None:
    kept = Kept()
    history = kept.history
    history.keeps_streams = True
    kept.control(b'{"op":"stream-create"}', "stream")
    for _ in range(3):
        kept.add("stream", "a")
    kept.add("stream")
    kept.control(b'{"op":"purge"}', "a")
    a = kept.topics.intern("a")
    assert history.exempt_bytes == kept.topics.intern("stream").log.bytes
    history.evict_through(a, history.head)
    kept.control(b'{"op":"stream-drop"}', "stream")
    assert (history.exempt_bytes, history.bytes, history.events) == (0, 0, 0)


def exempt_cost(kept: Kept) -> int:
    """What the events cost that a durable stream keeps."""
    cost = 0
    for frame, owners in kept.history.whole.owned_after(START):
        topics = owners if isinstance(owners, tuple) else (owners,)
        if any(one.is_exempt and frame.position > one.evicted_through for one in topics):
            cost += frame.size + EVENT_COST_BYTES
    return cost


@settings(deadline=None, max_examples=200)
@given_by(st.lists(st.tuples(st.integers(0, 6), st.sets(st.sampled_from("stua"), min_size=1))))
def test_an_event_of_several_durable_streams_counts_once(
    script: list[tuple[int, set[str]]],
) -> None:
    kept = Kept(TopicRule(match="a", history_events=2))
    history = kept.history
    history.keeps_streams = True
    for step, names in script:
        first, *_ = topics = sorted(names)
        if step == 0:
            kept.control(b'{"op":"stream-create"}', first)
        elif step == 1:
            kept.control(b'{"op":"stream-drop"}', first)
        elif step == 2:
            history.blank(history.head)
        else:
            kept.add(*topics)
        assert history.exempt_bytes == exempt_cost(kept)


def test_events_of_two_durable_streams_do_not_lift_the_bound_of_others() -> None:
    kept = Kept(history_total=20_000)
    kept.history.keeps_streams = True
    for name in ("s", "t"):
        kept.control(b'{"op":"stream-create"}', name)
    for _ in range(500):
        kept.add("s", "t")
    for _ in range(500):
        kept.add("plain")
    plain = kept.topics.intern("plain")
    assert plain.log is not None
    assert 15_000 < plain.log.bytes <= 20_000


def test_a_durable_stream_keeps_all_of_it_until_it_is_deleted() -> None:
    kept = Kept(history_events=2)
    history, calls = kept.history, list[str]()
    history.on_reopened = lambda topic: calls.append(topic.name)
    history.keeps_streams = True
    topic = kept.topics.intern("a")
    kept.control(b'{"op":"stream-create"}', "a")
    added = [kept.add("a") for _ in range(4)]
    assert topic.is_exempt
    assert kept.read(kept.named("a"), START + 1, None) == added
    kept.control(b'{"op":"stream-hide"}', "a")
    assert topic.is_exempt
    kept.control(b'{"op":"end"}', "a")
    end = kept.control(b'{"op":"stream-drop"}', "a")
    assert not topic.is_exempt
    assert calls == ["a"]
    assert history.evicted_through(kept.named("a")) == end
    later = [kept.add("a") for _ in range(4)]
    assert kept.read(kept.named("a"), START, None) == later[2:]
    # Where another store has them, memory keeps what the rule keeps.
    history.keeps_streams = False
    kept.control(b'{"op":"stream-create"}', "b")
    assert not kept.topics.intern("b").is_exempt
    kept.control(b'{"op":"stream-drop"}', "b")
    assert calls == ["a"], "it had not ended"
