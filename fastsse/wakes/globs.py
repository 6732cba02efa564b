"""Patterns of stream paths: `*` is one segment, or a part of one; `**` is zero or more segments."""

import re
from typing import Final

from fastsse.errors import BadRequest

__all__ = ["compile_glob"]

_BYTES_MAX: Final = 256
# More of them would make matching slow.
_WILDCARDS_MAX: Final = 6
_SEGMENTS: Final = "(?>[^/]+/)*"


def compile_glob(pattern: object) -> re.Pattern[str]:
    """A pattern that matches whole paths, in O(bytes of the path x bytes of the pattern): clients
    choose both. Raises BadRequest.

    What stands between two wildcards is matched at the first place, in an atomic group. A later
    place would leave less for the rest, so none is tried when the rest does not match.
    """
    if not isinstance(pattern, str) or not 0 < len(pattern.encode(errors="replace")) <= _BYTES_MAX:
        raise BadRequest("pattern", f"must be text of 1 to {_BYTES_MAX} bytes")
    if pattern.count("*") > _WILDCARDS_MAX:
        raise BadRequest("pattern", f"must have at most {_WILDCARDS_MAX} asterisks")
    if pattern == "**":
        return re.compile("[^/]+(?:/[^/]+)*")
    parts = [""]  # Between `**`.
    segments = pattern.split("/")
    for index, segment in enumerate(segments):
        slash = "" if index == len(segments) - 1 else "/"
        if segment != "**":
            parts[-1] += _segment(segment) + slash
        elif slash:
            parts.append("")
        else:  # Zero segments take no slash.
            parts[-1] = parts[-1].removesuffix("/") + "(?:/[^/]+)*"
    first, *between = parts
    last = _SEGMENTS + between.pop() if between else ""
    return re.compile(first + "".join(f"(?>{_SEGMENTS}?{part})" for part in between) + last)


def _segment(segment: str) -> str:
    if not segment or "**" in segment:
        raise BadRequest("pattern", "must not have empty segments, or ** within a segment")
    if segment == "*":
        return "[^/]+"
    first, *between = map(re.escape, segment.split("*"))
    last = "[^/]*" + between.pop() if between else ""
    return first + "".join(f"(?>[^/]*?{part})" for part in between) + last
