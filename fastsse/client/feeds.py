"""Selections that are too long for a URL are stored at the server, and named by a short id."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote_plus

import httpx
import orjson

from fastsse.client.http import Headers, ask, not_ours, refusal, sibling_path

__all__ = ["UNKNOWN", "is_too_long", "store_feed"]

#: The reason of a gap event for a feed that the server does not have.
UNKNOWN: Final = "feed"
# The server's default for the topics of one stream.
_TOPICS_MAX: Final = 100
# Proxies take request lines of 8 KiB, and other parameters need room too.
_QUERY_BYTES_MAX: Final = 4 * 1024
# Servers without feeds.
_ABSENT: Final = (404, 405, 501)


def is_too_long(topics: Sequence[str]) -> bool:
    """Whether so many topics should not stand in a URL."""
    if len(topics) > _TOPICS_MAX:
        return True
    size = sum(
        len("&topic=") + len(quote_plus(topic.encode("utf-8", "replace"))) for topic in topics
    )
    return size > _QUERY_BYTES_MAX


async def store_feed(
    client: httpx.AsyncClient, events: httpx.URL, topics: Sequence[str], headers: Headers
) -> str | None:
    """The id of the feed of these topics, which the server keeps from now on; None for a server
    that keeps none.

    Arguments:
        events: the address of its events.
        headers: those of the stream's request.

    Raises httpx.RequestError, and Refused for any other answer.
    """
    kept = [one for one in headers if one[0].lower() not in (b"accept", b"cache-control")]
    answer, body = await ask(
        client,
        "POST",
        events.copy_with(path=sibling_path(events, "/feeds"), params=None),
        content=orjson.dumps(list(topics)),
        headers=[*kept, (b"Content-Type", b"application/json")],
    )
    if answer.status_code in _ABSENT:
        return None
    if answer.status_code not in (200, 201):
        raise refusal(answer, body)
    try:
        feed: str = orjson.loads(body)["feed"]
    except (ValueError, KeyError, TypeError):
        raise not_ours() from None
    return feed
