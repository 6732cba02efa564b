"""Payloads: converts messages of other systems to events, with the same checks as any publish."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import orjson

from fastsse._core import Filter
from fastsse._mapping import Mapping as NativeMapping
from fastsse.config.sources import SourceRule
from fastsse.directives import Directives, directives_of
from fastsse.errors import EventTooLarge, FastsseError
from fastsse.events import (
    DATA_JSON,
    DATA_TEXT,
    FIELDS,
    Event,
    check_event_type,
    check_own_id,
    check_topic,
)
from fastsse.expressions import compile_expression, matches
from fastsse.jsontext import Lossy, check_whole, is_whole
from fastsse.meta import MetaValue
from fastsse.positions import is_position_shaped
from fastsse.reserved import check_not_reserved
from fastsse.sources.source import Message, Words
from fastsse.sources.topic_templates import PlaceholderText

__all__ = ["Allows", "Maker", "PayloadWords"]

# What an envelope of a stream has: `time` is of the event that it was.
_MEMBERS: Final = (frozenset(FIELDS) - {"deliver_at", "delay"}) | {"time"}
# What a path of an object leads to where there is nothing.
_NOTHING: Final = object()


Allows = Callable[[str, str | None], bool]
"""Whether events of a type may be published to a topic."""


class Maker:
    """Makes a source's events.

    Arguments:
        rule: the source.
        max_bytes: the largest payload.
        allows: whether a topic may have an event type; None allows all.
        max_event_bytes: the largest data of an event; 0: only max_bytes bounds it.

    Attributes:
        max_bytes: see there.
    """

    def __init__(
        self,
        rule: SourceRule,
        max_bytes: int,
        allows: Allows | None = None,
        max_event_bytes: int = 0,
    ) -> None:
        self._topic = _template(rule.topic)
        self._event = _template(rule.event)
        self._id = _template(rule.id)
        self._data = _template(rule.data)
        self._meta = [(name, PlaceholderText(text)) for name, text in (rule.meta or {}).items()]
        self._filter: Filter | None = (
            None if rule.filter is None else compile_expression(rule.filter)
        )
        self._payload = rule.payload
        self._private = rule.private
        self.max_bytes: Final = max_bytes
        self._max_event_bytes = max_event_bytes
        self._allows = allows
        self._needs_words = self._reads_inside()
        self._mapping = self._native_mapping()

    def make(self, message: Message) -> Event | None:
        """The event of a message; None for one that the filter leaves out. Raises ValueError that
        says what is wrong with it."""
        payload = message.payload
        if len(payload) > self.max_bytes:
            raise ValueError("the payload is larger than max_body")
        try:
            words = message.words()
            mapped = None if self._mapping is None else self._mapping.event_of(payload, words)
            event = mapped or self._event_of(payload, words)
            if self._filter is not None and not _matches(self._filter, event):
                return None
            if mapped is None:
                check_not_reserved(event.topics)
            if self._allows is not None:
                self._check_type(event, self._allows)
            if 0 < self._max_event_bytes < len(event.data):
                raise EventTooLarge(len(event.data), self._max_event_bytes)
        except FastsseError as error:
            raise ValueError(str(error)) from None
        return event

    def _reads_inside(self) -> bool:
        """Whether a template names a member of the payload or of `meta`."""
        templates = [self._topic, self._event, self._id, self._data]
        templates += [template for _, template in self._meta]
        return any(
            name.startswith(("data", "meta."))
            for template in templates
            if template is not None
            for name in template.names
        )

    def _native_mapping(self) -> NativeMapping | None:
        """What makes most events of a rule that looks at JSON."""
        topic = self._topic
        is_plain = self._payload == "data" and not self._needs_words
        if topic is None or self._payload == "envelope" or is_plain:
            return None
        found = [None if one is None else one.parts for one in (self._event, self._id, self._data)]
        meta = [(name, template.parts) for name, template in self._meta]
        checks = (_check_topic, check_event_type, check_own_id)
        templates = (topic.parts, found[0], found[1], found[2], meta)
        return NativeMapping(templates, self._payload != "data", self._private, checks)

    def _event_of(self, payload: bytes, words: Words) -> Event:
        if self._payload == "envelope":
            return self._of_envelope(payload, words)
        return self._of_data(payload, words)

    def _of_data(self, payload: bytes, words: Words) -> Event:
        assert self._topic is not None
        kind = DATA_TEXT
        value: Any = _NOTHING
        if self._payload == "json":
            kind, value = DATA_JSON, _parsed(payload)
        elif self._needs_words or self._payload == "auto":
            value = _json_or_nothing(payload)
            if self._payload == "auto" and value is not _NOTHING:
                kind = DATA_JSON
        inside = None
        if self._needs_words:
            words = inside = PayloadWords(words, value)
        meta = self._mapped(words) if self._meta else None
        if inside is not None and meta is not None:
            inside.meta = meta
        data: bytes | str = payload
        if self._data is not None:
            kind, data = _data_of(self._data, words)
        return Event(
            _filled(self._topic, words),
            data,
            None if self._event is None else _filled(self._event, words),
            None if self._id is None else _filled(self._id, words),
            private=self._private,
            meta=meta,
            data_kind=kind,
        )

    def _mapped(self, words: Words) -> dict[str, MetaValue]:
        """The values of `meta`; a member whose words are missing is left out."""
        mapped: dict[str, MetaValue] = {}
        members = _members_of(words)
        for name, template in self._meta:
            value = None
            if members is not None and template.member is not None:
                value = members.get(template.member)
            if value is None:
                value = _value_of(template, words)
            if isinstance(value, str | int | float):
                mapped[name] = value
        return mapped

    def _of_envelope(self, payload: bytes, words: Words) -> Event:
        members = _whole(payload, "no JSON object with data")
        if not isinstance(members, dict) or "data" not in members:
            raise ValueError("no JSON object with data")
        unknown = members.keys() - _MEMBERS
        if unknown:
            raise ValueError(f"{min(unknown)!r} is unknown")
        meta = members.get("meta")
        if meta is not None and not isinstance(meta, dict):
            raise ValueError("meta must be an object")
        data, private = members["data"], members.get("private", self._private)
        inside = PayloadWords(words, data, meta or {})
        if self._meta:
            # What the envelope says is more exact than a rule.
            meta = inside.meta = {**self._mapped(inside), **(meta or {})}
        if "topic" not in members:
            if self._topic is None:
                raise ValueError("has no topic")
            members["topic"] = self._topic.fill(inside)
        if not isinstance(private, bool):
            raise ValueError("private must be true or false")
        own_id = _own_id(members)
        if own_id is None and self._id is not None:
            own_id = self._id.fill(inside)
        return Event(
            members["topic"],
            data if isinstance(data, str) else _json(data),
            members["event"] if "event" in members else self._type(inside),
            own_id,
            members.get("retry"),
            private,
            meta=meta,
            data_kind=DATA_TEXT if isinstance(data, str) else DATA_JSON,
            directives=_directives(members),
        )

    def _check_type(self, event: Event, allows: Allows) -> None:
        name = None if event.event is None else event.event.decode()
        for topic in event.topics:
            if not allows(topic, name):
                raise ValueError(f"event: this type is not allowed on topic {topic}")

    def _type(self, words: Words) -> str | None:
        return None if self._event is None else self._event.fill(words)


class PayloadWords(dict[str, str]):
    """The words of a message, and those inside its payload (`data.a.b`) and its `meta`. Each is
    looked up when a template asks for it.

    Attributes:
        value: what the payload is as JSON.
        meta: the members of `meta`.
    """

    __slots__ = ("_words", "meta", "value")

    def __init__(self, words: Words, value: Any, meta: Mapping[str, Any] | None = None) -> None:
        self._words = words
        self.value = value
        self.meta: Mapping[str, Any] = meta or {}

    def __missing__(self, name: str) -> str:
        if name[:5] == "meta.":
            value = self.meta.get(name[5:], _NOTHING)
        elif name[:4] == "data":
            value = self.lookup(name)
        else:
            return self._words[name]
        if value is _NOTHING or (value is None or isinstance(value, dict | list)):
            raise KeyError(name)
        return value if isinstance(value, str) else _json(value).decode()

    def lookup(self, name: str) -> Any:
        """What a path (`data.a.b`) leads to."""
        value = self.value
        for part in _path_of(name):
            if isinstance(value, dict):
                value = value.get(part, _NOTHING)
            elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            else:
                return _NOTHING
        return value


@cache
def _path_of(name: str) -> tuple[str, ...]:
    """The parts of a path; there are as many as the rules have."""
    return tuple(name.split(".")[1:])


def _check_topic(text: str) -> str:
    """A topic that sources may publish to. Raises InvalidEvent, Forbidden."""
    check_not_reserved((check_topic(text),))
    return text


def _template(text: str | None) -> PlaceholderText | None:
    return None if text is None else PlaceholderText(text)


def _members_of(words: Words) -> dict[str, Any] | None:
    """The members of the payload, if it is an object."""
    value = words.value if type(words) is PayloadWords else None
    return value if type(value) is dict else None


def _filled(template: PlaceholderText, words: Words) -> str:
    members = _members_of(words) if template.names else None
    return template.fill(words) if members is None else template.fill_from(members, words)


def _matches(expression: Filter, event: Event) -> bool:
    """An error in the evaluation is no match, as in streams."""
    return bool(
        matches(
            expression,
            topics=event.topics,
            data=event.data,
            event=event.event,
            meta=event.meta,
            data_kind=event.data_kind,
        )
    )


def _value_of(template: PlaceholderText, words: Words) -> Any:
    """What a template stands for: a value of the payload with its type, or text; None where a word
    is missing."""
    if template.only is not None and isinstance(words, PayloadWords):
        if template.only.startswith("data"):
            value = words.lookup(template.only)
            if value is not _NOTHING:
                return value
        elif template.only.startswith("meta."):
            value = words.meta.get(template.only[5:], _NOTHING)
            if value is not _NOTHING:
                return value
    try:
        return template.fill(words)
    except ValueError:
        return None


def _data_of(template: PlaceholderText, words: Words) -> tuple[int, bytes | str]:
    """The kind of the data that a template makes, and its text. Raises ValueError."""
    if template.only is not None and template.only.startswith("data"):
        value = words.lookup(template.only) if isinstance(words, PayloadWords) else _NOTHING
        if value is not _NOTHING and not isinstance(value, str):
            return DATA_JSON, _json(value)
    return DATA_TEXT, template.fill(words)


def _json_or_nothing(payload: bytes) -> Any:
    """The value of a payload that may be JSON."""
    # Most text is no JSON by its first character.
    if payload[:1] not in b'{["-0123456789tfn \n\r\t' or not payload:
        return _NOTHING
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        return _NOTHING


def _parsed(payload: bytes) -> Any:
    """The value of a payload that is sent as it is. Raises ValueError."""
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"the payload is no JSON: {error}") from None


def _whole(payload: bytes, what: str = "the payload is no JSON") -> Any:
    """The value of a payload. Raises ValueError, also for JSON that would lose something: a name
    that stands twice, a whole number over 64 bits."""
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{what}: {error}") from None
    if not is_whole(payload, [value]):
        _check(payload)
    return value


def _directives(members: Mapping[str, Any]) -> Directives | None:
    ends = members.get("end", False)
    if not isinstance(ends, bool):
        raise ValueError("end must be true or false")
    return directives_of(
        ends=ends,
        key=members.get("key"),
        expect=members.get("expect"),
        ttl=members.get("ttl"),
    )


def _own_id(members: Mapping[str, Any]) -> Any:
    """The publisher's own id. What a stream sent has a time, and its place there is no own id."""
    value = members.get("id")
    if "time" in members and isinstance(value, str):
        is_place = is_position_shaped(value.encode("utf-8", "surrogatepass"))
        return None if is_place else value
    return value


def _check(payload: bytes) -> None:
    """Raises ValueError for a name that stands twice or a whole number over 64 bits."""
    try:
        check_whole(payload if payload.lstrip()[:1] == b"{" else b"[%b]" % payload)
    except Lossy as error:
        raise ValueError(f"{error.member or 'data'}: {error.detail}") from None


def _json(data: Any) -> bytes:
    try:
        return orjson.dumps(data)
    except TypeError:
        raise ValueError("data is nested too deep") from None
