"""Topics live while something needs them, and what they lost is not forgotten with them."""

import pytest

from fastsse._core import POLICY_DISCONNECT, POLICY_LATEST, POLICY_SKIP
from fastsse._hub import TopicLog
from fastsse.config import HistoryOptions, TopicRule
from fastsse.hub import topics as topics_module
from fastsse.hub.topics import Rules, Topics


def topics_with(*rules: TopicRule, start: int = 100) -> Topics:
    return Topics(Rules(HistoryOptions(topics=rules), "skip"), start)


def test_first_rule_whose_glob_matches_holds() -> None:
    topics = topics_with(
        TopicRule(match="stocks/*", history_events=5, lag_policy="latest"),
        TopicRule(match="stocks/eu", history_events=7),
        TopicRule(match="*", history_age=2.5),
    )
    assert topics.intern("stocks/eu").rule.events == 5
    assert topics.intern("stocks/us/nyse").rule.policy == POLICY_LATEST
    assert topics.intern("weather").rule.age_ms == 2500
    assert topics.intern("weather").rule.policy == POLICY_SKIP
    # `fastsse doctor` has a rule of its own: a minute.
    assert topics.rules.ages_ms == [2500, 60_000, 3_600_000]


def test_topics_of_one_rule_share_it() -> None:
    topics = topics_with(TopicRule(match="a*", lag_policy="disconnect"))
    assert topics.intern("a1").rule is topics.intern("a2").rule
    assert topics.intern("b1").rule is topics.intern("b2").rule is topics.rule("never made")
    assert topics.intern("a1").rule.policy == POLICY_DISCONNECT


def test_allowed_event_types_match_whole_and_count_none_as_message() -> None:
    topics = topics_with(
        TopicRule(match="a", event_types="tick|tock"), TopicRule(match="m", event_types="message")
    )
    assert [topics.rule("a").allows(event) for event in (b"tick", b"tock", b"ticks", None)] == [
        True,
        True,
        False,
        False,
    ]
    assert topics.rule("m").allows(None)
    assert topics.rule("b").allows(b"anything")
    assert topics.rules.restricts


def test_numbers_are_dense_from_one_and_given_again_after_forgetting() -> None:
    topics = topics_with()
    assert [topics.intern(name).number for name in "abca"] == [1, 2, 3, 1]
    topics.may_be_idle(topics.intern("b"))
    assert [topic.name for topic in topics.forget_idle(10)] == ["b"]
    assert topics.intern("d").number == 2
    assert topics.intern("e").number == 4
    assert len(topics) == 4


def test_topics_with_history_or_channels_are_not_forgotten() -> None:
    topics = topics_with()
    kept, heard = topics.intern("kept"), topics.intern("heard")
    kept.log = TopicLog()
    heard.channels = heard.named = 1
    topics.may_be_idle(kept)
    topics.may_be_idle(heard)
    assert topics.forget_idle(10) == []
    assert topics.idle_count == 0


def test_a_topic_that_only_templates_match_is_forgotten() -> None:
    topics = topics_with()
    topics.intern("a").channels = 1
    topics.may_be_idle(topics.intern("a"))
    assert [topic.name for topic in topics.forget_idle(10)] == ["a"]


def test_forgetting_examines_a_bounded_number_of_topics() -> None:
    topics = topics_with()
    for name in "abc":
        topics.may_be_idle(topics.intern(name))
    assert len(topics.forget_idle(2)) == 2
    assert topics.idle_count == 1


def test_a_topic_that_comes_back_knows_what_it_lost() -> None:
    topics = topics_with(start=100)
    lost = topics.intern("a")
    lost.evicted_through = 500
    topics.may_be_idle(lost)
    topics.forget_idle(10)
    assert topics.intern("a").evicted_through == 500
    assert topics.intern("b").evicted_through == 100


def test_what_forgotten_topics_lost_is_bounded_and_then_known_for_all_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(topics_module, "REMEMBERED_MAX", 3)
    topics = topics_with(start=100)
    for index in range(5):
        topic = topics.intern(f"t{index}")
        topic.evicted_through = 500 + index
        topics.may_be_idle(topic)
        topics.forget_idle(10)
    assert topics.forgotten_through == 501
    assert topics.intern("t0").evicted_through == 501
    assert topics.intern("new").evicted_through == 501
    assert topics.intern("t4").evicted_through == 504


def test_topics_that_lost_nothing_need_no_remembering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics_module, "REMEMBERED_MAX", 0)
    topics = topics_with(start=100)
    topics.may_be_idle(topics.intern("quiet"))
    topics.forget_idle(10)
    assert topics.forgotten_through == 100


def test_new_topics_are_shown_once_for_patterns_to_match() -> None:
    topics = topics_with()
    shown = []
    topics.on_new = lambda topic: shown.append(topic.name)
    for name in "aab":
        topics.intern(name)
    assert shown == ["a", "b"]
