"""Strict JSON objects, for tokens and revocations: every parser reads them in the same way.

Parsers differ for a repeated name (first or last value) and for numbers that are too large. Such
text is refused, because the difference could change what is allowed.
"""

import json
import math
from typing import Any, Final, NoReturn

import orjson

__all__ = ["Odd", "read_object"]


class Odd(ValueError):
    """Text that is not such an object. The message is a predicate, such as "is not JSON"."""


def read_object(raw: bytes | bytearray) -> dict[str, Any]:
    """The members of the object. Raises Odd. O(bytes)."""
    try:
        value = orjson.loads(raw)
        # Usually the text is what orjson would write. Then it has no repeated name, which orjson
        # does not report, and no number that orjson can't store.
        if orjson.dumps(value) != raw:
            value = _decoder.decode(raw.decode())
    except Odd:
        raise
    except (ValueError, TypeError, RecursionError):
        raise Odd("is not JSON") from None
    if not isinstance(value, dict):
        raise Odd("is not a JSON object")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Odd("has a repeated name")
    return members


def _no_constant(_: str) -> NoReturn:
    raise Odd("has NaN or Infinity in place of a number")


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
