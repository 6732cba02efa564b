"""Pages of history as answers of their own, for programs without a stream."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import httpx
import orjson

from fastsse.client.decoder import Gap
from fastsse.client.errors import Unreachable
from fastsse.client.feeds import is_too_long, store_feed
from fastsse.client.http import (
    ANSWER_TIMEOUT_S,
    Params,
    ask,
    events_url,
    new_client,
    not_ours,
    reason_of,
    refusal,
    request_headers,
)
from fastsse.client.view import Envelope, StreamView

__all__ = ["EventPage", "fetch_page"]

# Several events of the longest that streams accept by default.
_PAGE_BYTES_MAX: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class EventPage:
    """A page of history.

    Attributes:
        events: in order.
        next: pass it as `last_event_id` of the next call.
        gap: what is missing before the events; None: nothing.
        ended: nothing will follow, because the topics have ended or `until` was met.
    """

    events: tuple[Envelope, ...]
    next: str
    gap: Gap | None
    ended: bool


async def fetch_page(
    url: str,
    topics: str | Iterable[str],
    *,
    wait_s: float = 0,
    last_event_id: str = "",
    last: int | None = None,
    since: str | None = None,
    view: StreamView | None = None,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    uds: str | None = None,
    client: httpx.AsyncClient | None = None,
) -> EventPage:
    """The next page of events, at once or when the next event comes.

    Arguments as for `listen`, and:
        wait_s: how long to wait for an event, 0 to 60 s. After that the page is empty.
        client: your own httpx client, which keeps its connection from call to call.

    Returns an EventPage of at most about 256 KiB. Raises Refused, Unreachable, ValueError for an
    invalid URL. Thread of the event loop only.
    """
    names = [topics] if isinstance(topics, str) else list(topics)
    params: Params = [("topic", name) for name in names]
    begin = {"wait": f"{wait_s:g}s" if wait_s else "0", "last": last, "since": since}
    params += [(name, value) for name, value in begin.items() if value is not None]
    params += (view or StreamView()).params
    if last_event_id:
        params.append(("last_event_id", last_event_id))
    used = new_client(uds) if client is None else client
    try:
        if is_too_long(names):
            feed = await store_feed(
                used, httpx.URL(events_url(url)), names, request_headers(token, headers)
            )
            if feed is not None:
                params = [("feed", feed), *params[len(names) :]]
        response, body = await ask(
            used,
            "GET",
            events_url(url),
            answer_s=ANSWER_TIMEOUT_S + wait_s,
            bytes_max=_PAGE_BYTES_MAX,
            params=httpx.QueryParams(params),
            headers=request_headers(token, {"Accept": "application/json", **(headers or {})}),
        )
    except httpx.RequestError as error:
        raise Unreachable(f"{url}: {reason_of(error)}.") from None
    finally:
        if client is None:
            await used.aclose()
    if response.status_code != 200:
        raise refusal(response, body)
    return _page(body)


def _page(body: bytes) -> EventPage:
    try:
        answer = orjson.loads(body)
        parsed = (Envelope.parse(orjson.dumps(one).decode()) for one in answer["events"])
        gap = answer["gap"]
        return EventPage(
            tuple(one for one in parsed if one is not None),
            answer["next"],
            None if gap is None else Gap(gap["reason"], gap["requested"], gap["from"]),
            answer["ended"],
        )
    except (ValueError, KeyError, TypeError):
        raise not_ours() from None
