"""Templates: a topic or an event type made from a channel's name or an entry's fields."""

import re
from collections.abc import Mapping
from typing import Final

from fastsse.config.sources import PLACEHOLDER

__all__ = ["Template", "compile_pattern", "words_of"]

# A longer channel could be no topic, and would cost the pattern's wildcards too much.
CHANNEL_MAX: Final = 1024
_GLOB_PART: Final = re.compile(r"\\(.)|(\*+)|(\?)|\[(\^?)((?:\\.|[^\]\\])*)\]|(.)", re.DOTALL)


class Template:
    """Text with placeholders, checked by the configuration."""

    __slots__ = ("_parts",)

    def __init__(self, text: str) -> None:
        # Text and names by turns.
        self._parts: Final = PLACEHOLDER.split(text)

    def fill(self, words: Mapping[str, str]) -> str:
        """The text. Raises ValueError when a word is missing."""
        try:
            return "".join(
                words[part] if index % 2 else part for index, part in enumerate(self._parts)
            )
        except KeyError as error:
            raise ValueError(f"has no {error.args[0]}") from None


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A glob as Redis has them, its wildcards as groups: `*`, `?`, `[ab]`, `[^a]`, `\\x`."""
    parts = []
    for escaped, many, one, negated, members, plain in _GLOB_PART.findall(pattern):
        if many:
            parts.append("(.*)")
        elif one:
            parts.append("(.)")
        elif members:
            kept = re.sub(r"\\(.)|([\[&~|])", r"\\\1\2", members)
            parts.append(f"([{negated}{kept}])")
        else:
            parts.append(re.escape(escaped or plain))
    return re.compile("".join(parts), re.DOTALL)


def words_of(pattern: re.Pattern[str], channel: str) -> dict[str, str]:
    """What a template can say of a channel. Raises ValueError for a name that is too long."""
    if len(channel) > CHANNEL_MAX:
        raise ValueError("the channel's name is too long")
    found = pattern.fullmatch(channel)
    groups = found.groups() if found is not None else ()
    return {"channel": channel} | {str(index): text for index, text in enumerate(groups, 1)}
