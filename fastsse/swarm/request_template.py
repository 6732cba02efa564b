"""The request that each connection sends, with its number in it where `{n}` stands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import SplitResult, quote, urlencode

from fastsse.swarm._swarm import VALUE
from fastsse.swarm.refusal import Refusal

DEFAULT_PATH = "/events"
_MARK = re.compile(rb"\{n(?:%(\d{1,9}))?\}|\0")
# A connection's own token stands where the NUL is; no argument of a command can hold one.
_TOKEN = ("Authorization", "Bearer \0")


def request_head(
    url: SplitResult,
    topics: Sequence[str],
    headers: Sequence[tuple[str, str]],
    has_token: bool = False,
) -> bytes:
    """A subscription's request head without its last blank line, `{n}` marks still in it.

    Args:
        has_token: each connection has a token of its own, which goes into a header.

    Raises:
        Refusal: a header can't be sent.
    """
    query = "&".join(filter(None, (url.query, urlencode([("topic", t) for t in topics]))))
    target = (url.path if url.path not in ("", "/") else DEFAULT_PATH) + (query and f"?{query}")
    target = _restore_marks(quote(target, safe="/%?&=+:@!$'()*,;~{}"))
    lines = [f"GET {target} HTTP/1.1", f"Host: {url.netloc}", "Accept: text/event-stream"]
    lines += ["Cache-Control: no-cache", "User-Agent: fastsse-swarm"]
    all_headers = (*headers, _TOKEN) if has_token else headers
    lines += [f"{name}: {value}" for name, value in all_headers]
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


def _number_of(mark: re.Match[bytes]) -> int:
    return VALUE if mark[0] == b"\0" else int(mark[1] or 0)


def split_at_numbers(head: bytes) -> list[tuple[bytes, int]]:
    """The text between marks, each with the modulus of the number after it (0: none; VALUE: a token
    stands there)."""
    pieces = []
    start = 0
    for mark in _MARK.finditer(head):
        pieces.append((head[start : mark.start()], _number_of(mark)))
        start = mark.end()
    return [*pieces, (head[start:], 0)]
