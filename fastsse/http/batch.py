"""JSON bodies as events: one object, or one a line (NDJSON), all or nothing.

orjson is fast and lenient in two places where a publisher's mistake would pass in silence: of a
name that stands twice it keeps the last value, and a whole number over 64 bits becomes a float.
Both are found by comparing what was sent with what was understood, for a whole batch at once;
only where they differ is a body read again, slowly, to tell what is wrong and where.
"""

import json
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import orjson

from fastsse.errors import InvalidEvent
from fastsse.events import Event
from fastsse.http.problems import Problem

__all__ = ["event_of_json", "events_of_lines"]

MEMBERS: Final = ("topic", "data", "event", "id", "retry", "private")
_MEMBER_SET: Final = frozenset(MEMBERS)
_QUOTED: Final = tuple(b'"%s"' % name.encode() for name in MEMBERS)
# Our names are of the letters a to z only.
_ESCAPED_LETTERS: Final = (b"\\u006", b"\\u007")
_INT_LEAST, _INT_MOST = -(1 << 63), (1 << 64) - 1


def event_of_json(body: bytes | bytearray) -> Event:
    """The event that one JSON object describes. Raises Problem or InvalidEvent (400)."""
    try:
        members = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem(400, f"This is not JSON: {error}.", field="body") from None
    if type(members) is not dict:
        raise Problem(400, "Must be a JSON object.", field="body")
    encoded: list[bytes] = []
    event = _event(members, encoded)
    if not _is_understood(body, [members], encoded):
        _check_slowly(body)
    return event


def events_of_lines(body: bytes | bytearray) -> list[Event]:
    """The events of an NDJSON body, in order; blank lines are skipped.

    Raises Problem (400) whose member `line` says which line is wrong, counted from 1.
    """
    lines = bytes(body).split(b"\n")
    try:
        objects = list(map(orjson.loads, filter(None, lines)))
        encoded: list[bytes] = []
        events = [_event(members, encoded) for members in objects]
        if _is_understood(body, objects, encoded):
            return events
    except (orjson.JSONDecodeError, InvalidEvent, Problem, AttributeError, TypeError):
        pass  # Said again below, with the line.
    return _read_slowly(lines)


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


def _event(members: dict[str, Any], encoded: list[bytes]) -> Event:
    """One object as an event; JSON data that is not text is added to `encoded`."""
    get = members.get
    if "topic" not in members or "data" not in members or not members.keys() <= _MEMBER_SET:
        _refuse_members(members)
    data = members["data"]
    if type(data) is not str:
        try:
            data = orjson.dumps(data)
        except TypeError:
            raise InvalidEvent("data", "is nested too deep") from None
        encoded.append(data)
    private = get("private", False)
    if type(private) is not bool:
        raise InvalidEvent("private", "must be true or false")
    return Event(members["topic"], data, get("event"), get("id"), get("retry"), private)


def _refuse_members(members: dict[str, Any]) -> NoReturn:
    for name in members:
        if name not in _MEMBER_SET:
            raise InvalidEvent(name, f"is unknown; there are {', '.join(MEMBERS)}")
    raise InvalidEvent("data" if "topic" in members else "topic", "is missing")


def _is_understood(
    body: bytes | bytearray, objects: Sequence[dict[str, Any]], encoded: Sequence[bytes]
) -> bool:
    """Whether no name can stand twice and no number can have lost digits.

    Each of our names was written as often as it was understood, here or inside of data, and none
    behind escapes; and no float has an exponent, as all do that are beyond 64 bits.
    """
    inside = b"".join(encoded)
    written = sum(map(body.count, _QUOTED))
    if written != sum(map(len, objects)) + sum(map(inside.count, _QUOTED)):
        return False
    return not any(sign in body for sign in _ESCAPED_LETTERS) and b"e+" not in inside


def _check_slowly(body: bytes | bytearray) -> None:
    """Raises InvalidEvent for a member that stands twice or a whole number over 64 bits."""
    try:
        pairs = json.loads(body, object_pairs_hook=list, parse_int=_parse_int)
    except RecursionError:
        raise InvalidEvent("data", "is nested too deep") from None
    names = [name for name, _ in pairs]
    for name in MEMBERS:
        if names.count(name) > 1:
            raise InvalidEvent(name, "stands twice")


def _parse_int(digits: str) -> int:
    if len(digits) <= 20 and _INT_LEAST <= (value := int(digits)) <= _INT_MOST:
        return value
    detail = "a whole number is beyond 64 bits and would lose digits; send it as text"
    raise InvalidEvent("data", detail)
