"""Offsets: positions in a form of fixed width, which sorts as text as the positions do."""

import re
from typing import Final, Literal, TypeAlias

__all__ = ["NOW", "START", "Offset", "format_offset", "parse_offset"]

#: The sentinels of the protocol: all content, and none of what there is.
START: Final = "-1"
NOW: Final = "now"
Offset: TypeAlias = int | Literal["now"]
_OFFSET: Final = re.compile(r"([0-9a-f]{16})_([0-9a-f]{16})", re.ASCII)


def format_offset(position: int) -> str:
    """The offset after the content at a position. 33 characters, as long as positions have 128
    bits."""
    return f"{position >> 64:016x}_{position & (1 << 64) - 1:016x}"


def parse_offset(text: str) -> Offset | None:
    """The position of an offset, 0 for the start; None for one that this server never gave."""
    if text == START:
        return 0
    if text == NOW:
        return NOW
    match = _OFFSET.fullmatch(text)
    return None if match is None else int(match[1], 16) << 64 | int(match[2], 16)
