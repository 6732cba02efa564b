"""Patterns of stream paths: `*` is one segment, or a part of one; `**` is zero or more segments."""

import re
from typing import Final

from fastsse.errors import BadRequest

__all__ = ["compile_glob"]

_BYTES_MAX: Final = 256
# More of them would make matching slow.
_WILDCARDS_MAX: Final = 6


def compile_glob(pattern: object) -> re.Pattern[str]:
    """A pattern that matches whole paths. Raises BadRequest."""
    if not isinstance(pattern, str) or not 0 < len(pattern.encode(errors="replace")) <= _BYTES_MAX:
        raise BadRequest("pattern", f"must be text of 1 to {_BYTES_MAX} bytes")
    if pattern.count("*") > _WILDCARDS_MAX:
        raise BadRequest("pattern", f"must have at most {_WILDCARDS_MAX} asterisks")
    text = ""
    segments = pattern.split("/")
    for index, segment in enumerate(segments):
        is_last = index == len(segments) - 1
        if segment == "**":
            # Zero segments take no slash.
            text = text.removesuffix("/") + "(?:/[^/]+)*" if is_last else text + "(?:[^/]+/)*"
            continue
        if not segment or "**" in segment:
            raise BadRequest("pattern", "must not have empty segments, or ** within a segment")
        text += "[^/]+" if segment == "*" else "[^/]*".join(map(re.escape, segment.split("*")))
        text += "" if is_last else "/"
    if pattern == "**":
        text = "[^/]+(?:/[^/]+)*"
    return re.compile(text)
