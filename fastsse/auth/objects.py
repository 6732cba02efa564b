"""JSON objects that every reader understands alike: what tokens and revocations are made of.

Of a name that stands twice one reader keeps the first value and another the last, and of numbers
that are too large each keeps something else; where that would change what is allowed, such text
is refused.
"""

import json
import math
from typing import Any, Final, NoReturn

import orjson

__all__ = ["Odd", "read_object"]


class Odd(ValueError):
    """Text that is no such object; says what it is, to stand after whose it is."""


def read_object(raw: bytes | bytearray) -> dict[str, Any]:
    """The object's members. Raises Odd. O(bytes)."""
    try:
        value = orjson.loads(raw)
        # Mostly it is JSON as we would write it. Then no name stands twice, which orjson does
        # not tell; nor are there numbers that it can't hold.
        if orjson.dumps(value) != raw:
            value = _decoder.decode(raw.decode())
    except Odd:
        raise
    except (ValueError, TypeError, RecursionError):
        raise Odd("is not JSON") from None
    if not isinstance(value, dict):
        raise Odd("is no JSON object")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Odd("has a name that stands twice")
    return members


def _no_constant(_: str) -> NoReturn:
    raise Odd("has a number that is none")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Odd("has a number that is too large")
    return number


def _whole(text: str) -> int:
    if len(text) > 20:
        raise Odd("has a number that is too long")
    return int(text)


_decoder: Final = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_constant=_no_constant,
    parse_float=_finite,
    parse_int=_whole,
)
