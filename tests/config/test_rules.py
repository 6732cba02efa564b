"""Rules of topics and sources in a configuration: what they match, and where a wrong one is."""

import pytest

from fastsse.config import Config
from tests.config.problems import problem

# --- Topic rules


def test_first_matching_rule_holds_over_the_options() -> None:
    config = Config(
        topics=[
            {"match": "stocks/*", "history_age": "10m", "lag_policy": "latest"},
            {"match": "*", "history_events": 5},
        ]
    )
    stock = config.limits("stocks/eu/a")
    assert (stock.events, stock.age_s, stock.lag_policy) == (1000, 600, "latest")
    other = config.limits("news")
    assert (other.events, other.age_s, other.bytes) == (5, 3600, 16 * 2**20)
    assert other.lag_policy is None


@pytest.mark.parametrize(
    ("glob", "topic", "matches"),
    [
        ("stocks/*", "stocks/a", True),
        ("stocks/*", "stocks", False),
        ("a?c", "abc", True),
        ("a?c", "aXbc", False),
        ("[ab]", "b", True),
        ("*", "any\nthing", True),
        ("A", "a", False),
        ("a.c", "abc", False),
    ],
)
def test_rule_matches_as_a_glob(glob: str, topic: str, matches: bool) -> None:
    assert Config(topics=[{"match": glob}]).topics[0].matches(topic) is matches


def test_event_types_must_match_as_a_whole() -> None:
    limits = Config(topics=[{"match": "*", "event_types": "tick|message"}]).limits("a")
    assert limits.allows_event_type("tick")
    assert limits.allows_event_type(None)
    assert not limits.allows_event_type("ticks")
    assert Config().limits("a").allows_event_type("anything")


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({}, "topics[0].match = missing"),
        ({"match": ""}, "topics[0].match"),
        ({"match": "a", "history_agee": 1}, "did you mean history_age?"),
        ({"match": "a", "histroy_events": 1}, "did you mean history_events?"),
        ({"match": "a", "color": 1}, "is not an option; allowed are match, history_events, "),
        ({"match": "a", "event_types": "("}, "a regular expression (missing )"),
        ({"match": "a", "types": []}, "topics[0].types"),
        ({"match": "a", "types": ["x" * 257]}, "topics[0].types"),
        ({"match": "a", "types": [""]}, "topics[0].types"),
        ({"match": "a", "types": ["x"] * 101}, "topics[0].types"),
        ({"match": "a", "types": ["x"], "event_types": "x"}, "either types or event_types"),
        ({"match": "a", "private": True}, "only tokens have grants"),
        ({"match": "a", "private": 7}, "topics[0].private"),
        ({"match": "a", "history_age": "-1s"}, 'topics[0].history_age = "-1s"'),
        ({"match": "a", "lag_policy": "no"}, "disconnect, skip or latest"),
    ],
)
def test_bad_rule_names_its_place(rule: dict[str, object], says: str) -> None:
    assert says in problem(topics=[rule])


def test_bad_source_names_its_place_and_what_was_meant() -> None:
    rule = {"name": "x", "chanels": ["c"], "topic": "t"}
    assert "sources[0].chanels (from an argument) is not an option; did you mean channels?" in (
        problem(sources=[rule])
    )
    assert "allowed are name, url, channels, " in problem(sources=[{"name": "x", "zzz": 1}])
