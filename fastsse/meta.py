"""`meta`: a few named values that a publisher adds to an event, next to its data."""

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import orjson

from fastsse.errors import InvalidEvent
from fastsse.jsontext import Lossy, TooDeep, check_whole, is_whole

__all__ = ["META_BYTES_MAX", "META_MEMBERS_MAX", "MetaValue", "encode_meta"]

MetaValue = str | int | float | bool
META_BYTES_MAX: Final = 4096
META_MEMBERS_MAX: Final = 32
# Such a name needs no quotes in a filter, a template and a command line.
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
_NAME_CHARACTERS_MAX: Final = 64
# Publishers use few names, again and again.
_KNOWN_NAMES_MAX: Final = 1024


def encode_meta(value: Mapping[str, MetaValue] | str | bytes) -> bytes | None:
    """Metadata as compact JSON; None for an empty object.

    Arguments:
        value: at most 32 members, or the JSON of them. A name is 1 to 64 letters, digits or `_`
            and does not begin with a digit. A value is text, a number, true or false. All together
            is at most 4,096 bytes of JSON.

    Raises InvalidEvent about `meta`. O(bytes).
    """
    members = _parsed(value) if isinstance(value, str | bytes) else value
    if type(members) is not dict and not isinstance(members, Mapping):
        raise InvalidEvent("meta", "must be an object of names and values")
    if len(members) > META_MEMBERS_MAX:
        raise InvalidEvent("meta", f"must have at most {META_MEMBERS_MAX} members")
    for name, member in members.items():
        if type(member) is not str or not _is_known(name):
            _check_member(name, member)
    try:
        encoded = orjson.dumps(members if type(members) is dict else dict(members))
    except TypeError:
        raise InvalidEvent("meta", "must be UTF-8 and numbers of at most 64 bits") from None
    if len(encoded) > META_BYTES_MAX:
        raise InvalidEvent("meta", f"must be at most {META_BYTES_MAX:,} bytes of JSON")
    return encoded if members else None


def _parsed(text: str | bytes) -> Any:
    try:
        raw = text.encode() if isinstance(text, str) else text
    except UnicodeEncodeError:
        raise InvalidEvent("meta", "must be UTF-8") from None
    # A space between all tokens and every character escaped is what a client may add.
    if len(raw) > 6 * META_BYTES_MAX:
        raise InvalidEvent("meta", f"must be at most {META_BYTES_MAX:,} bytes of JSON")
    try:
        members = orjson.loads(raw)
        if not is_whole(raw, [members]):
            check_whole(raw)
    except (orjson.JSONDecodeError, TooDeep):
        raise InvalidEvent("meta", "must be a JSON object") from None
    except Lossy as error:
        name = f"{error.member}: " if error.member else ""
        raise InvalidEvent("meta", f"{name}{error.detail}") from None
    return members


def _is_known(name: object) -> bool:
    """Whether it is a right name for certain."""
    return type(name) is str and len(name) <= _NAME_CHARACTERS_MAX and _is_name(name)


@lru_cache(_KNOWN_NAMES_MAX)
def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def _check_member(name: object, value: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidEvent(
            "meta",
            "a name must be 1 to 64 letters, digits or _ and must not begin with a digit",
        )
    if not isinstance(value, str | int | float):
        raise InvalidEvent("meta", f"{name} must be text, a number, true or false")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidEvent("meta", f"{name} must be a finite number")
