"""The request that each connection sends, with its number in it where `{n}` stands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import SplitResult, quote, urlencode

from fastsse.swarm.refusal import Refusal

DEFAULT_PATH = "/events"
_MARK = re.compile(rb"\{n(?:%(\d{1,9}))?\}")


def request_head(
    url: SplitResult, topics: Sequence[str], headers: Sequence[tuple[str, str]]
) -> bytes:
    """A subscription's request head without its last blank line, `{n}` marks still in it.

    Raises:
        Refusal: a header can't be sent.
    """
    query = "&".join(filter(None, (url.query, urlencode([("topic", t) for t in topics]))))
    target = (url.path if url.path not in ("", "/") else DEFAULT_PATH) + (query and f"?{query}")
    target = _restore_marks(quote(target, safe="/%?&=+:@!$'()*,;~{}"))
    lines = [f"GET {target} HTTP/1.1", f"Host: {url.netloc}", "Accept: text/event-stream"]
    lines += ["Cache-Control: no-cache", "User-Agent: fastsse-swarm"]
    lines += [f"{name}: {value}" for name, value in headers]
    if any("\r" in line or "\n" in line for line in lines):
        raise Refusal("A header can't hold a line break.")
    return "\r\n".join(lines).encode() + b"\r\n"


def _restore_marks(target: str) -> str:
    """Gives `{n}` and `{n%100}` their braces back after percent-encoding."""
    return re.sub(
        r"(?:%7B|\{)n(?:%(?:25)?(\d{1,9}))?(?:%7D|\})", _mark, target, flags=re.IGNORECASE
    )


def _mark(found: re.Match[str]) -> str:
    return f"{{n%{found[1]}}}" if found[1] else "{n}"


def split_at_numbers(head: bytes) -> list[tuple[bytes, int]]:
    """The text between `{n}` marks, each with the modulus of the number after it (0: none)."""
    pieces = []
    start = 0
    for mark in _MARK.finditer(head):
        pieces.append((head[start : mark.start()], int(mark[1] or 0)))
        start = mark.end()
    return [*pieces, (head[start:], 0)]
