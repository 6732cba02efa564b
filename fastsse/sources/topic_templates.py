"""Templates: a topic or an event type made from a channel's name or an entry's fields."""

import re
from collections.abc import Mapping
from typing import Final

from fastsse.config.sources import PLACEHOLDER

__all__ = ["PlaceholderText", "compile_pattern", "words_of"]

# A longer channel name can't be a topic, and matching wildcards with it would cost too much.
CHANNEL_BYTES_MAX: Final = 1024


class PlaceholderText:
    """Text with placeholders, checked by the configuration."""

    __slots__ = ("_parts",)

    def __init__(self, text: str) -> None:
        # Texts and names, alternately.
        self._parts: Final = PLACEHOLDER.split(text)

    def fill(self, words: Mapping[str, str]) -> str:
        """The text. Raises ValueError when a word is missing."""
        try:
            return "".join(
                words[part] if index % 2 else part for index, part in enumerate(self._parts)
            )
        except KeyError as error:
            raise ValueError(f"has no {error.args[0]}") from None


def compile_pattern(pattern: str) -> re.Pattern[bytes]:
    """A glob as Redis reads it, byte by byte, its wildcards as groups: `*`, `?`, `[ab]`, `[^a]`,
    `[a-c]`, `\\x`."""
    text = pattern.encode()
    parts, at = [], 0
    while at < len(text):
        sign = text[at : at + 1]
        at += 1
        if sign == b"*":
            parts.append(b"(.*)")
            while text[at : at + 1] == b"*":
                at += 1
        elif sign == b"?":
            parts.append(b"(.)")
        elif sign == b"[":
            members, at = _compile_members(text, at)
            parts.append(b"(%b)" % members)
        else:
            if sign == b"\\" and at < len(text):
                sign, at = text[at : at + 1], at + 1
            parts.append(re.escape(sign))
    return re.compile(b"".join(parts), re.DOTALL)


def _compile_members(text: bytes, at: int) -> tuple[bytes, int]:
    """The set in brackets, and where the text continues. A set without end extends to the end of
    the text. `a-c` is the range between both, in any order."""
    is_negated = text[at : at + 1] == b"^"
    at += is_negated
    ranges = b""
    while at < len(text) and text[at] != ord("]"):
        if text[at] == ord("\\") and at + 1 < len(text):
            low = high = text[at + 1]
            at += 2
        elif text[at + 1 : at + 2] == b"-" and at + 2 < len(text):
            low, high = sorted((text[at], text[at + 2]))
            at += 3
        else:
            low = high = text[at]
            at += 1
        ranges += b"\\x%02x-\\x%02x" % (low, high)
    if not ranges:
        return (b"." if is_negated else b"(?!)"), at + 1
    return b"[%b%b]" % (b"^" if is_negated else b"", ranges), at + 1


def words_of(pattern: re.Pattern[bytes], channel: bytes) -> dict[str, str]:
    """The words of a channel for templates. Raises ValueError for a name that is too long or is not
    text."""
    if len(channel) > CHANNEL_BYTES_MAX:
        raise ValueError("the channel's name is too long")
    found = pattern.fullmatch(channel)
    groups = found.groups() if found is not None else ()
    words = {str(index): text.decode() for index, text in enumerate(groups, 1)}
    return words | {"channel": channel.decode()}
