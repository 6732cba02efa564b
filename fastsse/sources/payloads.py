"""Payloads: converts bytes of other systems to events, with the same checks as any publish."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from fastsse.config.sources import SourceRule
from fastsse.directives import Directives, directives_of
from fastsse.errors import EventTooLarge, FastsseError
from fastsse.events import DATA_JSON, DATA_TEXT, FIELDS, Event
from fastsse.jsontext import Lossy, check_whole, is_whole
from fastsse.positions import is_position_shaped
from fastsse.reserved import check_not_reserved
from fastsse.sources.topic_templates import PlaceholderText

__all__ = ["Allows", "Maker"]

# What an envelope of a stream has: `time` is of the event that it was.
_MEMBERS: Final = frozenset(FIELDS) | {"time"}


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
        self._topic = None if rule.topic is None else PlaceholderText(rule.topic)
        self._event = None if rule.event is None else PlaceholderText(rule.event)
        self._has_envelope = rule.payload == "envelope"
        self._private = rule.private
        self.max_bytes: Final = max_bytes
        self._max_event_bytes = max_event_bytes
        self._allows = allows

    def make(self, payload: bytes, words: Mapping[str, str]) -> Event:
        """The event of a payload. Raises ValueError that says what is wrong with it."""
        if len(payload) > self.max_bytes:
            raise ValueError("the payload is larger than max_body")
        try:
            event = (
                self._of_envelope(payload, words)
                if self._has_envelope
                else self._of_data(payload, words)
            )
            check_not_reserved(event.topics)
            self._check_type(event)
            if 0 < self._max_event_bytes < len(event.data):
                raise EventTooLarge(len(event.data), self._max_event_bytes)
        except FastsseError as error:
            raise ValueError(str(error)) from None
        return event

    def _of_data(self, payload: bytes, words: Mapping[str, str]) -> Event:
        assert self._topic is not None
        return Event(self._topic.fill(words), payload, self._type(words), private=self._private)

    def _of_envelope(self, payload: bytes, words: Mapping[str, str]) -> Event:
        members: Any = orjson.loads(payload)
        if not isinstance(members, dict) or "data" not in members:
            raise ValueError("no JSON object with data")
        if not is_whole(payload, [members]):
            _check(payload)
        unknown = members.keys() - _MEMBERS
        if unknown:
            raise ValueError(f"{min(unknown)!r} is unknown")
        meta = members.get("meta")
        if isinstance(meta, dict):
            words = {**words, **{f"meta.{name}": _word(value) for name, value in meta.items()}}
        elif meta is not None:
            raise ValueError("meta must be an object")
        if "topic" not in members:
            if self._topic is None:
                raise ValueError("has no topic")
            members["topic"] = self._topic.fill(words)
        data, private = members["data"], members.get("private", self._private)
        if not isinstance(private, bool):
            raise ValueError("private must be true or false")
        return Event(
            members["topic"],
            data if isinstance(data, str) else _json(data),
            members["event"] if "event" in members else self._type(words),
            _own_id(members),
            members.get("retry"),
            private,
            meta=meta,
            data_kind=DATA_TEXT if isinstance(data, str) else DATA_JSON,
            directives=_directives(members),
        )

    def _check_type(self, event: Event) -> None:
        if self._allows is None:
            return
        name = None if event.event is None else event.event.decode()
        for topic in event.topics:
            if not self._allows(topic, name):
                raise ValueError(f"event: this type is not allowed on topic {topic}")

    def _type(self, words: Mapping[str, str]) -> str | None:
        return None if self._event is None else self._event.fill(words)


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
        check_whole(payload)
    except Lossy as error:
        raise ValueError(f"{error.member or 'data'}: {error.detail}") from None


def _word(value: Any) -> str:
    """A value of `meta` in a template, as JSON writes it, but text without quotes."""
    return value if isinstance(value, str) else _json(value).decode()


def _json(data: Any) -> bytes:
    try:
        return orjson.dumps(data)
    except TypeError:
        raise ValueError("data is nested too deep") from None
