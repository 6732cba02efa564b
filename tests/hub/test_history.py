"""History against a plain model: what is kept, what a reader gets, what counts as lost."""

from hypothesis import given
from hypothesis import strategies as st

from fastsse._hub import EVENT_COST_BYTES, OWN_ID_COST_BYTES, TOPIC_COST_BYTES
from fastsse.config import HistoryOptions, TopicRule
from tests.hub.made_history import SECOND, START, make, positions


def test_only_the_newest_events_of_a_topic_are_kept_by_count() -> None:
    made = make(history_events=3)
    added = [made.add("a") for _ in range(5)]
    assert made.kept("a") == added[2:]
    assert made.lost_through("a") == added[1]
    assert made.lost_through("other") == START


def test_only_the_newest_events_of_a_topic_are_kept_by_bytes() -> None:
    made = make(history_bytes=2 * (50 + EVENT_COST_BYTES))
    added = [made.add("a") for _ in range(4)]
    assert made.kept("a") == added[2:]
    big = made.add("a", size=2 * EVENT_COST_BYTES + 101)
    assert made.kept("a") == []
    assert made.lost_through("a") == made.lost_through("*") == big


def test_a_rule_that_keeps_nothing_keeps_nothing_and_says_so() -> None:
    made = make(TopicRule(match="live/*", history_events=0))
    kept, gone = made.add("a"), made.add("live/x")
    assert made.kept("live/x") == []
    assert made.kept("*") == [kept]
    assert made.lost_through("live/x") == made.lost_through("*") == gone
    assert made.lost_through("a") == START
    assert made.topics.intern("live/x").log is None


def test_events_that_are_too_old_go_without_any_publish() -> None:
    made = make(TopicRule(match="brief", history_age=1.0), history_age=10.0)
    brief, long = made.add("brief"), made.add("long")
    assert not made.history.sweep(made.now_ms + 1 * SECOND)
    assert made.kept("*") == [brief, long]
    assert not made.history.sweep(made.now_ms + 1 * SECOND + 1)
    assert (made.kept("brief"), made.kept("*")) == ([], [long])
    assert made.lost_through("brief") == brief
    assert made.lost_through("long") == START
    assert not made.history.sweep(made.now_ms + 11 * SECOND)
    assert made.kept("*") == []


def test_one_sweep_does_a_bounded_amount_of_work_and_says_that_more_is_left() -> None:
    made = make(history_age=1.0)
    added = [made.add("a") for _ in range(25)]
    later_ms = made.now_ms + 2 * SECOND
    assert made.history.sweep(later_ms, limit=10)
    assert made.kept("a") == added[10:]
    assert made.history.sweep(later_ms, limit=10)
    assert not made.history.sweep(later_ms, limit=10)
    assert made.kept("a") == []


def test_sweeps_get_past_events_that_stay() -> None:
    made = make(TopicRule(match="brief", history_age=1.0))
    staying = [made.add("long") for _ in range(25)]
    made.add("brief")
    later_ms = made.now_ms + 2 * SECOND
    assert [made.history.sweep(later_ms, limit=10) for _ in range(4)] == [True, True, False, False]
    assert made.kept("*") == staying


def test_a_sweep_after_the_clock_went_back_evicts_nothing() -> None:
    made = make(history_age=1.0)
    added = made.add("a")
    assert not made.history.sweep(made.now_ms - 10**9)
    assert made.kept("a") == [added]


def test_total_bound_evicts_the_oldest_of_all_topics() -> None:
    one = 50 + EVENT_COST_BYTES + TOPIC_COST_BYTES
    made = make(history_total=3 * one)
    added = [made.add(name) for name in "abcd"]
    assert made.kept("*") == added[1:]
    assert made.lost_through("a") == made.lost_through("*") == added[0]
    assert made.lost_through("b") == START
    assert made.history.bytes == 3 * one
    made.add("d", size=3 * one)
    assert made.kept("*") == []
    assert (made.history.bytes, made.history.events) == (0, 0)


def test_an_event_under_several_topics_counts_once_and_stays_until_the_last_evicts_it() -> None:
    made = make(TopicRule(match="short", history_events=1))
    both = made.add("short", "long")
    assert made.history.bytes == 50 + EVENT_COST_BYTES + 2 * TOPIC_COST_BYTES
    assert made.history.events == 1
    later = made.add("short")
    assert made.kept("short") == [later]
    assert made.kept("long") == [both]
    assert made.kept("*") == made.kept("long", "short") == [both, later]
    assert made.lost_through("*") == START


def test_a_reader_of_several_topics_gets_an_event_of_both_once_and_in_order() -> None:
    made = make()
    added = [made.add(*names) for names in ("a", "ab", "b", "ba", "c", "a")]
    assert made.kept("a", "b") == [*added[:4], added[5]]
    assert made.kept("a", "b", after=added[1]) == [added[2], added[3], added[5]]


def test_pages_hold_at_most_their_bytes_but_always_one_event() -> None:
    made = make()
    added = [made.add("a", size=size) for size in (40, 40, 40, 500, 40)]
    page = made.history.page(made.select("a"), 0, 100)
    assert (positions(page.frames), page.through, page.is_last) == (added[:2], added[1], False)
    page = made.history.page(made.select("a"), added[1], 100)
    assert positions(page.frames) == [added[2]]
    page = made.history.page(made.select("a"), added[2], 100)
    assert positions(page.frames) == [added[3]]
    page = made.history.page(made.select("a"), added[3], 100)
    assert (positions(page.frames), page.is_last) == ([added[4]], True)


def test_the_newest_n_are_found_over_several_topics() -> None:
    made = make()
    added = [made.add(*names) for names in ("a", "ab", "b", "ba", "c", "a")]
    both = made.select("a", "b")
    assert made.history.before_newest(both, 3) == (added[2] - 1, True)
    assert made.history.before_newest(both, 100) == (added[0] - 1, False)
    assert made.history.before_newest(both, 0) == (added[-1], True)
    assert made.history.before_newest(made.select("none"), 3) == (added[-1], False)
    assert made.history.before_newest(None, 2) == (added[4] - 1, True)


def test_own_ids_are_found_by_their_earliest_event_and_go_with_it() -> None:
    made = make(history_events=2)
    first = made.add("a", own_id=b"x")
    made.add("a", own_id=b"x")
    assert made.history.find(b"x") == first
    assert made.history.bytes == 2 * (50 + EVENT_COST_BYTES) + TOPIC_COST_BYTES + OWN_ID_COST_BYTES
    made.add("a")
    assert made.history.find(b"x") is None
    again = made.add("a", own_id=b"x")
    assert made.history.find(b"x") == again


def test_an_own_id_is_found_as_a_header_brings_it_back() -> None:
    made = make()
    added = made.add("a", own_id=b" x y\t")
    assert made.history.find(b"x y") == made.history.find(b" x y\t") == added


def test_topics_are_idle_when_their_last_event_went() -> None:
    made = make(history_events=1, history_age=1.0)
    made.add("a")
    made.add("a")
    assert made.topics.forget_idle(10) == []
    made.history.sweep(made.now_ms + 2 * SECOND)
    assert [topic.name for topic in made.topics.forget_idle(10)] == ["a"]


# -- other rules while it is in use --------------------------------------------------------------

_limits = st.fixed_dictionaries(
    {},
    optional={
        "history_events": st.integers(0, 6),
        "history_age": st.integers(1, 8).map(float),
        "history_bytes": st.integers(0, 6).map(lambda count: count * (50 + EVENT_COST_BYTES)),
        "keep_last": st.integers(0, 3),
    },
)
_rules = st.dictionaries(st.sampled_from(["a", "b", "[ab]", "*"]), _limits, max_size=3)


@given(
    before=_rules,
    after=_rules,
    events=st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 2)), max_size=30),
    limit=st.sampled_from([1, 3, 1000]),
)
def test_new_rules_keep_of_what_is_there_what_they_would_have_kept(
    before: dict[str, dict[str, float]],
    after: dict[str, dict[str, float]],
    events: list[tuple[str, int]],
    limit: int,
) -> None:
    made, fresh = make(*_ruled(before)), make(*_ruled(after))
    for name, pause_s in events:
        made.now_ms = fresh.now_ms = made.now_ms + pause_s * SECOND
        made.add(name)
        fresh.add(name)
        made.history.sweep(made.now_ms)
        fresh.history.sweep(made.now_ms)
    was_kept = {name: made.kept(name) for name in "abc"}
    made.topics.rules.apply(HistoryOptions(topics=_ruled(after)))
    made.history.apply_rules()
    while made.history.sweep(made.now_ms, limit):
        pass
    for name in "abc":
        wanted = [place for place in fresh.kept(name) if place in was_kept[name]]
        assert made.kept(name) == wanted
        assert made.lost_through(name) >= max({*was_kept[name]}.difference(wanted), default=START)
    assert made.history.bytes == sum(
        TOPIC_COST_BYTES + len(made.kept(name)) * (50 + EVENT_COST_BYTES)
        for name in "abc"
        if made.kept(name)
    )


def _ruled(rules: dict[str, dict[str, float]]) -> tuple[TopicRule, ...]:
    return tuple([TopicRule(match=match, **limits) for match, limits in rules.items()])  # type: ignore[arg-type]


def test_a_topic_whose_rule_became_stricter_is_shortened_in_steps() -> None:
    made = make(history_events=100)
    added = [made.add("a") for _ in range(50)]
    made.topics.rules.apply(HistoryOptions(topics=_ruled({"a": {"history_events": 7}})))
    made.history.apply_rules()
    assert made.history.sweep(made.now_ms, 20)
    assert made.kept("a") == added[20:]
    while made.history.sweep(made.now_ms, 20):
        pass
    assert made.kept("a") == added[43:]
