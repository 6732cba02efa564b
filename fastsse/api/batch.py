"""Parses JSON bodies to events: one object, or one a line (NDJSON), all or none.

`_ndjson` reads lines and checks each for values that orjson would lose. If one is wrong, a slower
parser reads the body again and reports what is wrong and where.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

import orjson

from fastsse._ndjson import read_lines
from fastsse.directives import DIRECTIVE_FIELDS, Directives, directives_of
from fastsse.errors import InvalidEvent
from fastsse.events import DATA_JSON, DATA_TEXT, FIELDS, Event
from fastsse.http.problems import Problem
from fastsse.jsontext import Lossy, TooDeep, check_whole, is_whole
from fastsse.meta import MetaValue

__all__ = ["event_of_json", "events_of_lines"]

_MEMBER_SET: Final = frozenset(FIELDS)
# Events with other members have directives.
_PLAIN_SET: Final = _MEMBER_SET - DIRECTIVE_FIELDS
# What a line raises that describes no event.
_WRONG: Final = (
    orjson.JSONDecodeError, UnicodeDecodeError, InvalidEvent, Problem, TypeError, AttributeError,
)  # fmt: skip


def event_of_json(body: bytes | bytearray) -> Event:
    """The event that one JSON object describes. Raises Problem or InvalidEvent (400)."""
    try:
        members = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem(400, f"Invalid JSON: {error}.", field="body") from None
    if type(members) is not dict:
        raise Problem(400, "Must be a JSON object.", field="body")
    event = _event(members)
    if not is_whole(body, [members]):
        _check_slowly(body)
    return event


def events_of_lines(body: bytes | bytearray) -> Sequence[Event]:
    """The events of an NDJSON body, in order; blank lines are skipped.

    Raises Problem (400); its member `line` is the number of the wrong line, counted from 1.
    """
    try:
        batch = read_lines(body, _event)
        if batch is not None:
            return batch
    except _WRONG:
        pass  # Reported below, with the line number.
    return _read_slowly(bytes(body).split(b"\n"))


def _read_slowly(lines: Sequence[bytes]) -> list[Event]:
    events = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            events.append(event_of_json(line))
        except InvalidEvent as error:
            _blame(number, error.field, f"{error}.")
        except Problem as problem:
            _blame(number, problem.field, problem.detail)
    return events


def _blame(number: int, field: str | None, detail: str) -> NoReturn:
    raise Problem(400, f"Line {number}: {detail}", field=field, members={"line": number})


def _event(members: dict[str, Any]) -> Event:
    """The event that one object describes."""
    get = members.get
    directives = None
    if "topic" not in members or "data" not in members or not members.keys() <= _PLAIN_SET:
        _refuse_members(members)
        directives = _directives(members)
    data, kind = members["data"], DATA_TEXT
    if type(data) is not str:
        kind = DATA_JSON
        try:
            data = orjson.dumps(data)
        except TypeError:
            raise InvalidEvent("data", "is nested too deep") from None
    private = get("private", False)
    if type(private) is not bool:
        raise InvalidEvent("private", "must be true or false")
    return Event(
        members["topic"],
        data,
        get("event"),
        get("id"),
        get("retry"),
        private,
        meta=_meta(get("meta")),
        data_kind=kind,
        directives=directives,
    )


def _meta(value: object) -> Mapping[str, MetaValue] | None:
    # Text is the form of the query.
    if value is None or isinstance(value, dict):
        return value
    raise InvalidEvent("meta", "must be an object of names and values")


def _directives(members: dict[str, Any]) -> Directives | None:
    ends = members.get("end", False)
    if type(ends) is not bool:
        raise InvalidEvent("end", "must be true or false")
    return directives_of(
        ends=ends,
        key=members.get("key"),
        expect=members.get("expect"),
        ttl=members.get("ttl"),
        deliver_at=members.get("deliver_at"),
        delay=members.get("delay"),
    )


def _refuse_members(members: dict[str, Any]) -> None:
    """Raises InvalidEvent for a member that is unknown or missing."""
    for name in members:
        if name not in _MEMBER_SET:
            raise InvalidEvent(name, f"is unknown; allowed are {', '.join(FIELDS)}")
    if "topic" in members and "data" in members:
        return
    raise InvalidEvent("data" if "topic" in members else "topic", "is missing")


def _check_slowly(body: bytes | bytearray) -> None:
    """Raises InvalidEvent for a repeated name or an integer over 64 bits."""
    try:
        check_whole(body)
    except TooDeep as error:
        raise InvalidEvent("data", str(error)) from None
    except Lossy as error:
        raise InvalidEvent(error.member or "data", error.detail) from None
