"""JSON text that orjson reads without a loss.

orjson is fast, and lenient in two places where a sender's mistake would stay unnoticed. Of a name
that stands twice in an object it keeps the last value. A whole number over 64 bits becomes a
float. `is_whole` is a cheap check that neither can have happened. Only where it may have happened
`check_whole` reads the text again, slowly, and says what is wrong.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, Final

import orjson

__all__ = ["Lossy", "TooDeep", "check_whole", "is_whole"]

# A colon behind an escape: `\u003a`, in either case of its letter.
_ESCAPED_COLON: Final = b"\\u003"
_EXPONENT: Final = re.compile(rb"\de\+\d")
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 64) - 1


class Lossy(ValueError):
    """Text of which a reader would lose something.

    `member` is the name that stands twice in the outermost object, None for anything inside of it.
    `detail` says what is wrong, to stand behind the member's name.
    """

    def __init__(self, member: str | None, detail: str) -> None:
        super().__init__(detail)
        self.member = member
        self.detail = detail


class TooDeep(ValueError):
    """Text that is nested deeper than it can be written again."""


def is_whole(text: bytes | bytearray, values: Sequence[Any]) -> bool:
    """Whether `values`, which orjson has read from `text`, certainly hold all of it. O(bytes).

    Every pair of an object is written with a colon, so a pair that was dropped leaves fewer colons
    than were sent; an escaped colon in a string would hide that. Floats beyond 64 bits are written
    with an exponent. False says only that the text has to be looked at.
    """
    try:
        written = orjson.dumps(values)
    except TypeError:
        return False
    return (
        text.count(b":") == written.count(b":")
        and _ESCAPED_COLON not in text
        and (b"e+" not in written or _EXPONENT.search(written) is None)
    )


def check_whole(text: bytes | bytearray) -> None:
    """Raises Lossy for a name that stands twice in an object, at any depth, or a whole number over
    64 bits, and TooDeep. `text` is JSON; O(bytes), slowly."""
    doubled: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        name = _repeated([name for name, _ in pairs])
        if name is not None:
            doubled.append(name)
        return pairs

    try:
        outermost = json.loads(text, object_pairs_hook=note, parse_int=_parse_int)
    except RecursionError:
        raise TooDeep("is nested too deep") from None
    member = _repeated([pair[0] for pair in outermost if isinstance(pair, tuple)])
    if member is not None:
        raise Lossy(member, "stands twice")
    if doubled:
        raise Lossy(None, f"holds an object in which the name {doubled[0]!r} stands twice")


def _repeated(names: Sequence[str]) -> str | None:
    """The first name that comes again; None when there is none. O(names)."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _parse_int(digits: str) -> int:
    if len(digits) <= 20 and _INT_MIN <= (value := int(digits)) <= _INT_MAX:
        return value
    raise Lossy(None, "a whole number is beyond 64 bits and would lose digits; send it as text")
