"""Rules map messages as a plain reading of their templates says, whatever the payload is.

Most are mapped natively, the others in Python: both must make the same of a message.
"""

import json
import re
import subprocess
import sys
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsse.config.sources import SourceRule
from fastsse.errors import FastsseError
from fastsse.events import DATA_JSON, DATA_TEXT, Event
from fastsse.sources.payloads import Maker
from fastsse.sources.source import PlainMessage
from tests.sanitized import measures_memory

_PLACEHOLDER = re.compile(r"\{([^}|]+)(?:\|([^}]*))?\}")
_MISSING = object()
WORDS = {"channel": "c", "1": "one"}
NAMES = ("a", "b", "ä", "0", "deep", "")
PLACES = (
    "data",
    "data.a",
    "data.b",
    "data.ä",
    "data.0",
    "data.deep.a",
    "data.deep.0",
    "channel",
    "1",
)


def _found(value: Any, name: str) -> Any:
    """What a name stands for; _MISSING: nothing."""
    if name in WORDS:
        return WORDS[name]
    for part in name.split(".")[1:]:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return _MISSING
    return value


def _text(template: str, value: Any) -> str:
    def word(match: re.Match[str]) -> str:
        found = _found(value, match[1])
        if found is _MISSING or found is None or isinstance(found, dict | list):
            if match[2] is None:
                raise ValueError(f"has no {match[1]}")
            return match[2]
        return found if isinstance(found, str) else orjson.dumps(found).decode()

    return _PLACEHOLDER.sub(word, template)


def _meta(templates: dict[str, str], value: Any) -> dict[str, Any]:
    members = {}
    for name, template in templates.items():
        only = _PLACEHOLDER.fullmatch(template)
        found = _MISSING if only is None or only[1] in WORDS else _found(value, only[1])
        if found is _MISSING:
            try:
                found = _text(template, value)
            except ValueError:
                continue
        if isinstance(found, str | int | float):
            members[name] = found
    return members


def _event(rule: dict[str, Any], payload: bytes) -> Event | str:
    """The event of a message; text: why there is none."""
    try:
        try:
            value = orjson.loads(payload)
        except orjson.JSONDecodeError as error:
            if rule["payload"] == "json":
                return f"the payload is no JSON: {error}"
            value = _MISSING
        is_json = rule["payload"] == "json" or (rule["payload"] == "auto" and value is not _MISSING)
        meta = _meta(rule["meta"], value)
        return Event(
            _text(rule["topic"], value),
            payload,
            _text(rule["event"], value),
            meta=meta,
            data_kind=DATA_JSON if is_json else DATA_TEXT,
        )
    except FastsseError as error:
        return str(error)
    except ValueError as error:
        return str(error)


def _made(maker: Maker, payload: bytes, words: Any) -> Event | str | None:
    """What a rule makes of a message; text: why it makes no event."""
    try:
        return maker.make(PlainMessage("", payload, words))
    except ValueError as error:
        return str(error)


def _said(found: Event | str | None) -> Any:
    if found is None or isinstance(found, str):
        return found
    return {name: getattr(found, name) for name in Event.__slots__}


def template() -> st.SearchStrategy[str]:
    word = st.builds(
        lambda name, default: "{" + name + ("" if default is None else f"|{default}") + "}",
        st.sampled_from(PLACES),
        st.sampled_from((None, "", "d")),
    )
    return st.lists(word | st.sampled_from(("t/", "x")), min_size=1, max_size=3).map("".join)


def payload() -> st.SearchStrategy[bytes]:
    leaf = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False)
    leaf |= st.text(max_size=5)
    value = st.recursive(
        leaf,
        lambda inner: (
            st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
        ),
        max_leaves=8,
    )
    return value.map(lambda found: json.dumps(found).encode()) | st.binary(max_size=6)


@given(
    kind=st.sampled_from(("json", "auto", "data")),
    topic=template(),
    event=template(),
    meta=st.dictionaries(st.sampled_from(("m", "n", "o")), template(), max_size=3),
    messages=st.lists(payload(), min_size=1, max_size=4),
)
def test_an_event_is_what_a_plain_reading_of_its_rule_says(
    kind: str, topic: str, event: str, meta: dict[str, str], messages: list[bytes]
) -> None:
    given_rule = {"payload": kind, "topic": topic, "event": event, "meta": meta}
    base: dict[str, Any] = {"name": "s", "channels": ["*"]}
    maker = Maker(SourceRule.model_validate(base | given_rule), 1 << 20)
    for one in messages:
        assert _said(_made(maker, one, lambda: WORDS)) == _said(_event(given_rule, one))


class _Words(dict[str, str]):
    """Words of a message of Kafka: one is too long, one is no text."""

    def __missing__(self, name: str) -> str:
        if name == "key":
            raise ValueError("key is longer than 1024 bytes")
        raise KeyError(name)


MESSAGE = _Words({"topic": "k", "header.a": "x", "header.b": "\udcff", "partition": "0"})
MORE = ("key", "header.a", "header.b", "header.c", "topic")


def any_template(*more: str) -> st.SearchStrategy[str]:
    names = st.sampled_from((*PLACES[:7], "data.mercure", *MORE, *more))
    word = st.builds(
        lambda name, default: "{" + name + ("" if default is None else f"|{default}") + "}",
        names,
        st.sampled_from((None, "", "d", "earliest")),
    )
    text = st.sampled_from(("t/", "$", "/.well-known/", "mercure/x", "fastsse.", "\n", "é"))
    return st.lists(word | text, min_size=1, max_size=3).map("".join)


def an_object() -> st.SearchStrategy[bytes]:
    """Mostly objects with the members that rules ask for."""
    leaf = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False)
    leaf |= st.sampled_from(("", "x", "/.well-known/mercure/x", "1-1", "é", "\n", "y" * 1100))
    value = leaf | st.lists(leaf, max_size=2) | st.dictionaries(st.sampled_from(NAMES), leaf)
    members = st.dictionaries(st.sampled_from((*NAMES, "mercure")), value, max_size=5)
    plain = members.map(lambda found: json.dumps(found).encode())
    twice = plain.map(lambda text: text[:-1].rstrip(b"{") + b',"a":1}')
    return plain | twice | plain.map(lambda text: b" " + text) | payload()


@settings(max_examples=400)
@given(
    fields=st.fixed_dictionaries(
        {
            "payload": st.sampled_from(("json", "auto", "data")),
            "topic": any_template("meta.m"),
            "private": st.booleans(),
            "meta": st.dictionaries(st.sampled_from(("m", "n")), any_template(), min_size=1),
        },
        optional={
            "event": any_template("meta.m", "meta.o"),
            "id": any_template("meta.n"),
            "data": any_template("meta.m"),
            "filter": st.sampled_from(('data.a == "x"', "meta.m != 3", "data.b > 1")),
        },
    ),
    messages=st.lists(an_object(), min_size=1, max_size=6),
)
def test_native_and_python_make_the_same_of_every_message(
    fields: dict[str, Any], messages: list[bytes]
) -> None:
    base: dict[str, Any] = {"name": "s", "url": "kafka://h:9092", "topics": ["t"]}
    rule = SourceRule.model_validate(base | fields)
    both = Maker(rule, 1 << 20, None, 500), Maker(rule, 1 << 20, None, 500)
    both[1]._mapping = None
    for one in messages:
        native, python = (_made(maker, one, lambda: MESSAGE) for maker in both)
        assert _said(native) == _said(python)


def test_usual_messages_are_mapped_natively() -> None:
    base: dict[str, Any] = {"name": "s", "url": "kafka://h:9092", "topics": ["t"]}
    templates = {"topic": "{data.a}/{meta.m}", "event": "{data.b|x}", "meta": {"m": "{data.n}"}}
    maker = Maker(SourceRule.model_validate(base | templates | {"payload": "json"}), 1 << 20)
    mapping = maker._mapping
    assert mapping is not None
    event = mapping.event_of(b'{"a":"s","n":17,"deep":{"b":[1]}}', {})
    assert event is not None
    assert (event.topics, event.event, event.meta) == (("s/17",), b"x", b'{"m":17}')
    assert mapping.event_of(b'{"n":17}', {}) is None


_MEMORY = """
import gc
from fastsse.config.sources import SourceRule
from fastsse.entries import encode_entries
from fastsse.sources.payloads import Maker
from fastsse.sources.source import PlainMessage

templates = {"topic": "{data.a}", "payload": "json", "meta": {"m": "{data.n}", "a": "{data.a}"}}
base = {"name": "s", "url": "kafka://h:9092", "topics": ["t"]}
maker = Maker(SourceRule.model_validate(base | templates), 1 << 20)

def held_bytes():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def made(number):
    return maker.make(PlainMessage("", b'{"a":"s","n":%d}' % number, dict))

kept, before = [], held_bytes()
for first in range(1, COUNT, 200):
    numbers = range(first, first + 200)
    kept.append(encode_entries([n << 64 for n in numbers], [made(n) for n in numbers]))
print((held_bytes() - before) // COUNT)
"""


@measures_memory
def test_an_event_with_mapped_meta_holds_no_room_of_the_buffer_that_it_was_written_into() -> None:
    program = _MEMORY.replace("COUNT", "20000")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    # About 600; it was 4,500.
    assert int(done.stdout) < 1_500
