"""A history that was handed the events of before is the one that it would be if it had always been
there, whatever came meanwhile."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from fastsse.config import Config
from fastsse.entries import Entry, Extras, encode_entries
from fastsse.events import Event
from fastsse.hub.backfill import Evictions
from fastsse.hub.history import History
from fastsse.hub.templates import Templates, WantedTopics
from fastsse.hub.topics import Rules, Topics
from fastsse.positions import position_at

CONFIG = Config(
    port=0,
    history_events=4,
    lag_policy="skip",
    topics=[{"match": "none", "history_events": 0}, {"match": "few", "history_bytes": "1KiB"}],
)
RULES = Rules(CONFIG, CONFIG.lag_policy)
START = position_at(1_000)
NAMES = ["a", "b", "few", "none", "t/1", "t/2"]

names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)
batches = st.lists(names, max_size=25)


class Kept:
    """A history with its topics."""

    def __init__(self) -> None:
        self.topics = Topics(RULES, START)
        self.history = History(self.topics, CONFIG.history_total, START)

    def add(self, entries: Sequence[Entry]) -> None:
        for _, topics, own_id, frame, _ in entries:
            self.history.append(frame, tuple(map(self.topics.intern, topics)), own_id)

    def forget(self) -> None:
        self.topics.forget_idle(1_000)

    @property
    def state(self) -> object:
        """All that a reader could see of it."""
        history = self.history
        entries = history.entries(0, 1 << 30)
        lost = {
            name: max(self.topics.by_name[name].evicted_through, START)
            for name in NAMES
            if name in self.topics.by_name
        }
        return (
            [(one.position, one.topics, one.own_id) for one in entries],
            [history.find(b"i%d" % n) for n in range(80)],
            (history.events, history.bytes, history.head),
            (history.evicted_through(None), lost),
        )


def entries_of(first: int, batch: Sequence[list[str]]) -> list[Entry]:
    events = [
        Event(one, "x" * 200, id=f"i{first + n - START}" if n % 3 else None, private=n % 5 == 0)
        for n, one in enumerate(batch)
    ]
    return encode_entries(range(first, first + len(events)), events)


def handed_over(history: History, giver: Kept, through: int, page: int) -> None:
    """As another process would, some entries at a time."""
    older = history.older()
    entries = [one for one in giver.history.entries(0, 1 << 30) if one.position <= through]
    for at in range(0, len(entries), page):
        older.add(entries[at : at + page])
    evictions = giver.history.evictions()
    older.hold(evictions.by_topic)
    history.prepend(older, evictions)
    older.release()


@given(batches, batches, batches, st.integers(1, 7), st.booleans())
def test_it_is_the_history_that_was_always_there(
    before: list[list[str]],
    meanwhile: list[list[str]],
    after: list[list[str]],
    page: int,
    giver_knows: bool,
) -> None:
    always, giver, late = Kept(), Kept(), Kept()
    entries = entries_of(START + 1, before)
    always.add(entries)
    giver.add(entries)
    through = giver.history.head
    late.history.expect(through)
    entries = entries_of(through + 1, meanwhile)
    always.add(entries)
    late.add(entries)
    late.forget()
    if giver_knows:
        giver.add(entries)
    handed_over(late.history, giver, through, page)
    # The one that was always there: with all topics alive, as they are after a handing over.
    for one in (always, late):
        for name in NAMES:
            one.topics.intern(name)
    assert late.state == always.state
    entries = entries_of(through + len(meanwhile) + 1, after)
    always.add(entries)
    late.add(entries)
    assert late.state == always.state


@given(batches, batches)
def test_before_that_nothing_of_it_is_promised(
    before: list[list[str]], meanwhile: list[list[str]]
) -> None:
    late = Kept()
    through = START + len(before)
    late.history.expect(through)
    assert late.history.head == late.history.begins == through
    late.add(entries_of(through + 1, meanwhile))
    selection = tuple(late.topics.intern(name) for name in NAMES)
    assert late.history.evicted_through(selection) >= through
    assert late.history.evicted_through(None) >= through
    # Nor is it to another that asks for it.
    told = late.history.evictions()
    assert min(*told.by_topic.values(), told.of_all, told.forgotten_through) >= through


def test_a_topic_that_only_the_other_remembers_is_known_to_templates_of_before() -> None:
    giver, late = Kept(), Kept()
    giver.add(entries_of(START + 1, [["t/1"]] * 6))
    late.history.expect(giver.history.head)
    templates = Templates(late.topics)
    late.topics.on_new = lambda topic: templates.look_at(topic) and None

    class Channel:
        number = 1

    wanted = WantedTopics((), (templates.select("t/{n}", Channel()),), templates.numbered)
    handed_over(late.history, giver, giver.history.head, 100)
    assert late.history.evicted_through(wanted) == START + 2
    for topic in late.topics.forget_idle(100):
        templates.forget(topic)
    assert late.history.evicted_through(wanted) == START + 2


def test_unknown_evictions_count_for_earlier_templates() -> None:
    late = Kept()
    late.history.expect(START + 9)
    templates = Templates(late.topics)

    class Channel:
        number = 1

    wanted = WantedTopics((), (templates.select("t/{n}", Channel()),), templates.numbered)
    late.history.prepend(late.history.older(), Evictions({}, START + 5, START + 4))
    assert late.history.evicted_through(wanted) == START + 4
    assert late.history.evicted_through(None) == START + 5
    assert late.history.evicted_through((late.topics.intern("new"),)) == START + 4


def test_an_id_is_that_of_the_earliest_event_also_when_that_came_later() -> None:
    giver, late, always = Kept(), Kept(), Kept()
    first, second = encode_entries(range(START + 1, START + 3), [Event("a", id="x")] * 2)
    giver.add([first])
    late.history.expect(first.position)
    late.add([second])
    assert late.history.find(b"x") == second.position
    handed_over(late.history, giver, first.position, 1)
    always.add([first, second])
    assert late.history.find(b"x") == first.position
    assert late.state == always.state


def test_topics_are_held_only_as_long_as_events_are_on_their_way() -> None:
    late = Kept()
    late.history.expect(START + 9)
    older = late.history.older()
    older.add(entries_of(START + 1, [["a"], ["a", "b"]]))
    older.hold(["a", "c"])
    late.forget()
    assert set(late.topics.by_name) == {"a", "b", "c"}
    older.release()
    late.forget()
    assert not late.topics.by_name
    assert not late.history.events


def test_what_was_lost_meanwhile_is_not_taken_back() -> None:
    giver, late = Kept(), Kept()
    giver.add(entries_of(START + 1, [["a"], ["b"]]))
    through = giver.history.head
    late.history.expect(through)
    late.history.lose(through + 5)
    handed_over(late.history, giver, through, 1)
    assert late.history.events == 0
    assert late.history.evicted_through(None) == through + 5
    assert late.history.evicted_through((late.topics.intern("a"),)) == through + 5


def test_optional_fields_and_times_move_and_leave_with_their_events() -> None:
    giver, late = Kept(), Kept()
    extras = Extras(expires_ms=5, meta=b"{}", key=b"k")
    first, second = encode_entries([START + 1, START + 2], [Event("a")] * 2, [3, 4])
    topic = (giver.topics.intern("a"),)
    giver.history.append(first.frame, topic, None, extras)
    giver.history.append(second.frame, topic, None)
    late.history.expect(START + 2)
    handed_over(late.history, giver, START + 2, 1)
    for history in (giver.history, late.history):
        entries = history.entries(START)
        assert [entry.extras for entry in entries] == [extras, None]
        assert [entry.frame.time_ms for entry in entries] == [3, 4]
        assert list(history.times) == [(4, START + 2)]
        history.lose(START + 2)
        assert history.bytes == 0
