"""Templates: a topic or an event type made from a channel's name or an entry's fields."""

import re
from collections.abc import Mapping
from typing import Final

from fastsse.config.sources import PLACEHOLDER

__all__ = ["PlaceholderText", "compile_pattern", "words_of"]

# A longer channel name can't be a topic, and matching wildcards with it would cost too much.
CHANNEL_BYTES_MAX: Final = 1024


class PlaceholderText:
    """Text with placeholders, checked by the configuration. `{name|text}` stands for `text` where
    the word is missing.

    Attributes:
        names: of the words.
        member: M if the text is `{data.M}` and nothing else, or `{data.M|text}`.
    """

    __slots__ = ("_members", "_only", "_parts", "member", "names")

    def __init__(self, text: str) -> None:
        # Texts and names, alternately; a name with its default.
        pieces = PLACEHOLDER.split(text)
        self._parts: Final[tuple[str | tuple[str, str | None], ...]] = tuple(
            _named(piece) if index % 2 else piece
            for index, piece in enumerate(pieces)
            if index % 2 or piece
        )
        self.names: Final = tuple(part[0] for part in self._parts if isinstance(part, tuple))
        is_only = len(self._parts) == 1 and isinstance(self._parts[0], tuple)
        self._only: Final = self.names[0] if is_only else None
        # Of each part the member of the payload that it is; None: it is something else.
        self._members: Final = tuple(map(_member_of, self._parts))
        self.member: Final = self._members[0] if is_only else None

    @property
    def parts(self) -> tuple[str | tuple[str, str | None], ...]:
        """Its texts, and the names of words with what stands for them where they are missing."""
        return self._parts

    @property
    def only(self) -> str | None:
        """The name, if the text is one placeholder and nothing else."""
        return self._only

    def fill(self, words: Mapping[str, str]) -> str:
        """The text. Raises ValueError when a word is missing."""
        if not self.names:
            return self._parts[0] if self._parts else ""  # type: ignore[return-value]
        filled = ""
        for part in self._parts:
            filled += part if isinstance(part, str) else _word(part, words)
        return filled

    def fill_from(self, members: Mapping[str, object], words: Mapping[str, str]) -> str:
        """As `fill`, with words of a payload that is an object of these members."""
        filled = ""
        for part, member in zip(self._parts, self._members, strict=True):
            if member is not None and type(found := members.get(member)) is str:
                filled += found
            else:
                filled += part if isinstance(part, str) else _word(part, words)
        return filled


def _word(part: tuple[str, str | None], words: Mapping[str, str]) -> str:
    """A word, or what stands for it. Raises ValueError when it is missing."""
    name, default = part
    try:
        return words[name]
    except KeyError:
        if default is None:
            raise ValueError(f"has no {name}") from None
        return default


def _member_of(part: str | tuple[str, str | None]) -> str | None:
    """M of the word `data.M`."""
    head, _, member = part[0].partition(".") if isinstance(part, tuple) else ("", "", "")
    return member if head == "data" and member and "." not in member else None


def _named(piece: str) -> tuple[str, str | None]:
    name, has_default, default = piece.partition("|")
    return name, default if has_default else None


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
