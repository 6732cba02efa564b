"""Warnings about an accepted request that may not work as expected.

The header `Fastsse-Warning` carries them: to publishers in both APIs, and in the answers to polls.
"""

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["warning_lines", "warnings_on"]

# EventSource fires events of its own with these types (WHATWG HTML §9.2.2). A page that listens
# to "error" would take such an event for a lost connection.
_OWN_TYPES: Final = frozenset({b"error", b"open"})
_UNSAFE: Final = re.compile(r"[^\x20-\x7e]")
_LINE_MAX: Final = 500


def warnings_on(event_type: bytes | None) -> tuple[str, ...]:
    """The warnings about an event of this type."""
    if event_type is not None and event_type in _OWN_TYPES:
        return (
            f"the type {event_type.decode()} collides with EventSource's own event of this name",
        )
    return ()


def warning_lines(warnings: Iterable[str]) -> bytes:
    """The header line with these warnings; empty without warnings."""
    text = "; ".join(dict.fromkeys(warnings))
    if not text:
        return b""
    return b"Fastsse-Warning: %b\r\n" % _UNSAFE.sub("?", text)[:_LINE_MAX].encode()
