"""Names of channels become topics and event types, as the configuration says."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastsse.config import Config, ConfigError
from fastsse.config.sources import SourceRule
from fastsse.events import DATA_JSON
from fastsse.sources.payloads import Maker
from fastsse.sources.source import PlainMessage
from fastsse.sources.topic_templates import PlaceholderText, compile_pattern, words_of

KAFKA: dict[str, object] = {
    "name": "a", "url": "kafka://h:9092", "topics": ["a"], "topic": "t"
}  # fmt: skip
ENVELOPES: dict[str, object] = {"name": "s", "channels": ["a.*"], "payload": "envelope"}


@pytest.mark.parametrize(
    ("pattern", "channel", "words"),
    [
        ("orders.*", "orders.17.paid", {"1": "17.paid"}),
        ("orders.*.*", "orders.17.paid", {"1": "17", "2": "paid"}),
        ("h?llo", "hallo", {"1": "a"}),
        ("h[ae]llo", "hello", {"1": "e"}),
        ("h[^e]llo", "hallo", {"1": "a"}),
        ("h[a-c]llo", "hbllo", {"1": "b"}),
        (r"a\*b.*", "a*b.c", {"1": "c"}),
        ("**", "x\ny", {"1": "x\ny"}),
        ("plain", "plain", {}),
        ("a.b+c", "a.b+c", {}),
        ("h[z-a]llo", "hello", {"1": "e"}),
        (r"h[\d]llo", "hdllo", {"1": "d"}),
        (r"h[\]e]llo", "h]llo", {"1": "]"}),
        ("h[^]llo", "hello", {"1": "e"}),
        ("h[ell", "he", {"1": "e"}),
        ("h??", "h\u00e9", None),
        ("*?", "\u00e9", None),
        ("\u00fc.*", "\u00fc.\u00e9", {"1": "\u00e9"}),
    ],
)
def test_wildcards_stand_for_what_redis_matched(
    pattern: str, channel: str, words: dict[str, str] | None
) -> None:
    """A part of a character, as `?` can stand for, is no word."""
    compiled = compile_pattern(pattern)
    if words is None:
        with pytest.raises(UnicodeDecodeError):
            words_of(compiled, channel.encode())
    else:
        assert words_of(compiled, channel.encode()) == {"channel": channel} | words


def test_a_template_is_filled_or_names_the_missing_field() -> None:
    template = PlaceholderText("orders/{1}/{field.kind}/{channel}")
    assert template.fill({"1": "7", "field.kind": "x", "channel": "c"}) == "orders/7/x/c"
    with pytest.raises(ValueError, match=r"field\.kind"):
        template.fill({"1": "7", "channel": "c"})


class Made:
    """Makes events of payloads and words."""

    def __init__(self, rule: dict[str, object], *limits: Any, **more: Any) -> None:
        self._maker = Maker(SourceRule.model_validate(rule), *limits, **more)

    def make(self, payload: bytes, words: dict[str, str]) -> Any:
        return self._maker.make(PlainMessage("", payload, lambda: words))


def maker(**rule: object) -> Made:
    return Made({"name": "s", "channels": ["a.*"], "topic": "t/{1}"} | rule, 100)


def test_an_envelope_says_what_a_publish_can_say() -> None:
    make = maker(payload="envelope", event="{1}").make
    event = make(b'{"topic":["a","b"],"data":{"x":1},"event":"e","id":"i","private":true}', {})
    assert (event.topics, event.data, event.event) == (("a", "b"), b'{"x":1}', b"e")
    assert (event.id, event.private) == (b"i", True)
    event = make(b'{"data":"text"}', {"1": "one"})
    assert (event.topics, event.data, event.event) == (("t/one",), b"text", b"one")


def test_an_envelope_of_a_stream_can_be_published_again() -> None:
    """Its place and time are those of the event that it was."""
    sent = {"topic": ["a", "b"], "id": "7-1", "event": None, "data": {"n": 1}, "meta": None}
    event = maker(payload="envelope").make(json.dumps(sent | {"time": 7}).encode(), {})
    assert (event.topics, event.id, event.event) == (("a", "b"), None, None)
    assert (event.data, event.data_kind, event.meta) == (b'{"n":1}', DATA_JSON, None)
    own = maker(payload="envelope").make(json.dumps(sent | {"id": "own", "time": 7}).encode(), {})
    assert own.id == b"own"


def test_an_envelope_s_meta_is_kept_and_fills_templates() -> None:
    make = maker(payload="envelope", topic="t/{meta.tenant}/{meta.level}").make
    event = make(b'{"data":"x","meta":{"tenant":"acme","level":3}}', {})
    assert (event.topics, event.meta) == (("t/acme/3",), b'{"tenant":"acme","level":3}')
    with pytest.raises(ValueError, match=r"has no meta\.level"):
        make(b'{"data":"x","meta":{"tenant":"acme"}}', {})
    with pytest.raises(ValueError, match=r'payload = "envelope"'):
        maker(topic="{meta.tenant}")


def test_members_of_a_json_payload_fill_templates() -> None:
    make = maker(topic="logs/{data.service}/{data.level|info}", payload="json").make
    event = make(b'{"service":"shop","level":"error"}', {})
    assert (event.topics, event.data_kind) == (("logs/shop/error",), DATA_JSON)
    assert make(b'{"service":"shop"}', {}).topics == ("logs/shop/info",)
    assert make(b'{"service":7,"level":true}', {}).topics == ("logs/7/true",)
    for payload in (b'{"level":"x"}', b'{"service":null}', b'{"service":{}}', b"[]", b"7"):
        with pytest.raises(ValueError, match=r"has no data\.service"):
            make(payload, {})
    nested = maker(topic="{data.a.b.0}", payload="json").make
    assert nested(b'{"a":{"b":["x"]}}', {}).topics == ("x",)
    with pytest.raises(ValueError, match="no JSON"):
        nested(b"plain", {})


def test_a_payload_of_json_is_sent_as_it_is() -> None:
    make = maker(topic="t", payload="json").make
    for payload in (b'{"a":1,"a":2}', b"123456789012345678901", b" [1] ", b"1e300"):
        assert make(payload, {}).data == payload
    for payload in (b"", b"{", b"NaN", b"\xff", b"[" * 50):
        with pytest.raises(ValueError, match="no JSON"):
            make(payload, {})


def test_a_payload_of_auto_is_json_where_it_is_some() -> None:
    make = maker(topic="logs/{data.service|unknown}", payload="auto").make
    event = make(b'{"service":"shop"}', {})
    assert (event.topics, event.data_kind) == (("logs/shop",), DATA_JSON)
    for payload in (b"a plain line", b"{not json", b"", b"[1, 2"):
        event = make(payload, {})
        assert (event.topics, event.data, event.data_kind) == (("logs/unknown",), payload, 0)


def test_data_can_be_a_member_of_the_payload() -> None:
    whole = maker(topic="t", payload="json", data="{data.body}").make
    event = whole(b'{"body":{"x":[1]}}', {})
    assert (event.data, event.data_kind) == (b'{"x":[1]}', DATA_JSON)
    event = whole(b'{"body":"text"}', {})
    assert (event.data, event.data_kind) == (b"text", 0)
    with pytest.raises(ValueError, match=r"has no data\.body"):
        whole(b"{}", {})
    line = maker(topic="t", payload="json", data="{data.level}: {data.text}").make
    assert line(b'{"level":"info","text":"up"}', {}).data == b"info: up"


def test_meta_is_made_of_words_and_keeps_the_types_of_json() -> None:
    meta = {"level": "{data.level}", "host": "{header.host}", "trace": "{data.trace}", "x": "y"}
    make = maker(topic="t/{meta.host|none}", payload="json", meta=meta).make
    event = make(b'{"level":3}', {"header.host": "web1"})
    assert (event.topics, event.meta) == (("t/web1",), b'{"level":3,"host":"web1","x":"y"}')
    event = make(b'{"level":{},"trace":"abc"}', {})
    assert (event.topics, event.meta) == (("t/none",), b'{"trace":"abc","x":"y"}')


def test_an_envelope_s_own_values_go_before_those_of_the_rule() -> None:
    make = maker(topic="t", payload="envelope", id="{key}", meta={"a": "rule", "b": "rule"}).make
    event = make(b'{"data":"x","meta":{"a":"own"}}', {"key": "k1"})
    assert (event.id, event.meta) == (b"k1", b'{"a":"own","b":"rule"}')
    assert make(b'{"data":"x","id":"own"}', {"key": "k1"}).id == b"own"


def test_a_filter_leaves_out_what_does_not_match_and_what_can_not_be_judged() -> None:
    make = maker(topic="t", payload="json", filter='data.n > 1 && topic == "t"').make
    assert make(b'{"n":2}', {}) is not None
    assert make(b'{"n":1}', {}) is None
    assert make(b'{"n":"text"}', {}) is None
    assert make(b"[]", {}) is None


def test_an_event_over_max_event_is_no_event() -> None:
    rule = {"name": "s", "channels": ["a.*"], "topic": "t/{1}"}
    make = Made(rule, 1_000, max_event_bytes=100).make
    assert len(make(b"x" * 100, {"1": "one"}).data) == 100
    with pytest.raises(ValueError, match="max_event"):
        make(b"x" * 101, {"1": "one"})


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "empty document"),
        (b"[1]", "no JSON object"),
        (b'{"topic":"a"}', "with data"),
        (b'{"data":"x","color":1}', "'color' is unknown"),
        (b'{"data":"x","topic":7}', "topic"),
        (b'{"data":"x","event":"a\\nb"}', "CR, LF or NUL"),
        (b'{"data":"x","id":"1-1"}', "id"),
        (b'{"data":"x","private":1}', "private"),
        (b'{"data":"x","meta":"{}"}', "meta must be an object"),
        (b'{"data":"x","meta":{"a":null}}', "meta: a must be text"),
        (b'{"data":"x","data":"y"}', "data: stands twice"),
        (b'{"data":{"a":1,"a":2}}', "data: .*'a' stands twice"),
        (b'{"data":[{"b":{"a":1,"\\u0061":2}}]}', "'a' stands twice"),
        (b'{"data":123456789012345678901}', "would lose digits"),
        (b'{"data":"x","topic":"/.well-known/mercure/x"}', "server's own"),
        (b'{"data":"' + b"x" * 200 + b'"}', "larger than max_body"),
    ],
)
def test_a_payload_that_can_t_be_an_event_says_why(payload: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        maker(payload="envelope").make(payload, {"1": "x"})


def test_data_is_held_to_the_encoder_s_rules() -> None:
    with pytest.raises(ValueError, match="UTF-8"):
        maker().make(b"\xff", {"1": "x"})
    with pytest.raises(ValueError, match="control characters"):
        maker().make(b"x", {"1": "a\nb"})
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        maker(event="{1}", topic="t").make(b"x", {"1": "a\nb"})


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"name": "a b", "channels": ["x"], "topic": "t"}, "sources[0].name"),
        ({"name": "a", "topic": "t"}, "either channels or stream"),
        ({"name": "a", "channels": ["x"], "stream": "s", "topic": "t"}, "either channels or"),
        ({"name": "a", "channels": ["x"]}, "needs topic"),
        ({"name": "a", "channels": ["x"], "topic": "{0}"}, "sources[0].topic"),
        ({"name": "a", "channels": ["x"], "topic": "{x}"}, "sources[0].topic"),
        ({"name": "a", "channels": ["x"], "topic": "t", "url": "http://x"}, "sources[0].url"),
        ({"name": "a", "channels": ["x"], "topic": "t", "pending": 0}, "sources[0].pending"),
        ({"name": "a", "channels": ["x"], "topic": "t", "colour": 1}, "colour"),
        ({"name": "a", "channels": ["x"], "topic": "t"}, "set when store is not a Redis"),
        ({"name": "a", "stream": "s", "topic": "t", "dead_letter": "s"}, "dead letters"),
        (KAFKA | {"topics": []}, "needs topics"),
        (KAFKA | {"stream": "s"}, "needs topics"),
        (KAFKA | {"dead_letter": "a"}, "its own dead letters"),
        (KAFKA | {"topic": "{data}{x}"}, "sources[0].topic"),
        (KAFKA | {"topic": "{data.}"}, "sources[0].topic"),
        (KAFKA | {"topic": "{meta.a}"}, "needs meta"),
        (KAFKA | {"meta": {"a": "{meta.b}"}}, "within meta"),
        (KAFKA | {"meta": {"a b": "x"}}, "sources[0].meta"),
        (KAFKA | {"payload": "envelope", "data": "{key}"}, "from the envelope"),
        (KAFKA | {"payload": "xml"}, "data, json, auto or envelope"),
        (KAFKA | {"filter": "data.x >"}, "at character 9"),
        (KAFKA | {"filter": "topic < 'z'"}, "topic has no order"),
        (KAFKA | {"start": "now"}, "earliest or latest"),
        (KAFKA | {"settings": {"group.id": "x"}}, "group.id is set by the source itself"),
        (KAFKA | {"settings": {"plugin.library.paths": "x"}}, "plugin.library.paths"),
        (KAFKA | {"url": "kafka://h:9092/path"}, "sources[0].url"),
        (KAFKA | {"url": "kafka://a b:9092"}, "sources[0].url"),
        (KAFKA | {"url": "kafka://h?mechanism=NONE"}, "sources[0].url"),
        (KAFKA | {"url": "kafka://h?ca=/x"}, "its query may have mechanism"),
        (KAFKA | {"url": "kafka://"}, "sources[0].url"),
        (KAFKA | {"url": "carrier://pigeon"}, "its scheme must be one of"),
        ({"name": "a", "topic": "t", "topics": ["x"]}, "needs a kafka:// url"),
        (KAFKA | {"url": "redis://h", "topics": [], "stream": "s", "settings": {"a": 1}}, "Kafka"),
    ],
)
def test_a_source_that_can_t_be_is_refused_by_name(source: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(sources=[source])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ([{"stream": "s"}, {"name": "b", "stream": "s"}], "sources[1].group"),
        ([{"stream": "s"}, {"stream": "other"}], "sources[1].name"),
        ([{"stream": "fastsse"}], "sources[0].stream"),
        ([{"stream": "s", "dead_letter": "{fastsse}:desk"}], "sources[0].dead_letter"),
    ],
)
def test_sources_keep_out_of_each_other_s_way_and_the_log_s(
    sources: list[dict[str, object]], said: str
) -> None:
    given = [{"name": "a", "topic": "t"} | source for source in sources]
    with pytest.raises(ConfigError) as caught:
        Config(store="redis://127.0.0.1", sources=given)
    assert said in str(caught.value)
    elsewhere = [source | {"url": f"redis://h{index}"} for index, source in enumerate(given)]
    if "name" not in said:
        Config(store="redis://127.0.0.1", sources=elsewhere)


def test_the_types_that_a_topic_may_have_hold_for_sources_too() -> None:
    rule = {"name": "s", "stream": "s", "topic": "t", "event": "{stream}"}
    make = Made(rule, 100, lambda topic, name: (topic, name) == ("t", "good")).make
    assert make(b"x", {"stream": "good"}).event == b"good"
    with pytest.raises(ValueError, match="not allowed on topic t"):
        make(b"x", {"stream": "bad"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
MEMBER = st.sampled_from(["topic", "data", "event", "id", "retry", "private", "meta"])


@settings(max_examples=300)
@given(
    st.binary(max_size=50)
    | st.dictionaries(MEMBER, JSON).map(lambda members: json.dumps(members).encode())
)
@example(b'{"topic":"t","data":' + b"[" * 600 + b"]" * 600 + b"}")
@example(b"[" * 100_000)
@example(b'{"topic":"t","data":"\\ud800"}')
@example(b'{"topic":"t","data":' + b"9" * 5000 + b"}")
@example(b'{"topic":["/.well-known/mercure/subscriptions"],"data":""}')
@example(b'{"topic":"t","data":"","retry":1e400}')
@example(b'{"topic":"$t","data":"\\u0000"}')
def test_whatever_a_payload_holds_it_is_an_event_or_says_why_not(payload: bytes) -> None:
    make = Made(ENVELOPES, 1_000_000).make
    with contextlib.suppress(ValueError):
        assert make(payload, {}).topics


def test_a_password_is_never_shown() -> None:
    url = "redis://me:hidden@127.0.0.1/0"
    with pytest.raises(ConfigError) as caught:
        Config(sources=[{"name": "a", "url": url, "channels": ["x"], "topic": "t", "pending": -1}])
    assert "hidden" not in str(caught.value)
    config = Config(sources=[{"name": "a", "url": url, "channels": ["x"], "topic": "t"}])
    from fastsse.config import catalogue

    shown = catalogue()["sources"].show(config.sources)
    assert "hidden" not in shown
    assert "127.0.0.1" in shown
    url = "kafkas://me:hidden@h:9093,g:9093?mechanism=PLAIN"
    settings = {"ssl.key.password": "hidden", "client.rack": "a"}
    kafka = KAFKA | {"url": url, "settings": settings}
    shown = catalogue()["sources"].show(Config(sources=[kafka]).sources)
    assert "hidden" not in shown
    assert '"client.rack": "a"' in shown
    for wrong in ({"pending": -1}, {"topics": []}, {"settings": settings | {"group.id": "x"}}):
        with pytest.raises(ConfigError) as caught:
            Config(sources=[kafka | wrong])
        assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"url": "nats://h"}, "needs topics or stream"),
        ({"url": "nats://h", "channels": ["a"]}, "no channels"),
        ({"url": "nats://h/x", "topics": ["a"]}, "sources[0].url"),
        ({"url": "postgresql://h/d"}, "either table or channels"),
        ({"url": "postgresql://h/d", "table": "a; drop"}, "sources[0].table"),
        ({"url": "postgresql://h/d", "table": "a", "channels": ["b"]}, "either table or channels"),
        ({"url": "postgresql://h/d?options=x", "table": "a"}, "sources[0].url"),
        ({"url": "mqtt://h"}, "needs topics"),
        ({"url": "mqtt://h", "topics": ["a"], "dead_letter": "b"}, "file:PATH"),
        ({"url": "kafka://h", "topics": ["a"], "table": "b"}, "postgresql://"),
    ],
)
def test_a_source_of_another_system_needs_what_that_has(rule: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(sources=[{"name": "a", "topic": "t", **rule}])
    assert said in str(caught.value)
