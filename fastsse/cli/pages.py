"""`fastsse listen --wait`: shows pages of history without a stream."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fastsse.cli.eventlines import Printer, as_text
from fastsse.client.asyncclient import AsyncClient
from fastsse.client.decoder import DEFAULT_TYPE, GAP, ReceivedEvent
from fastsse.client.polling import EventPage
from fastsse.client.view import Envelope

__all__ = ["show_pages"]


async def show_pages(
    client: AsyncClient, asked: Mapping[str, Any], output: Printer, count: int | None
) -> None:
    """Prints pages until the topics have ended or `count` events are shown; with a wait of 0 until
    all that is kept is shown.

    Arguments:
        asked: keyword arguments of `fetch_page`.

    Raises ClientError.
    """
    shown = 0
    asked = dict(asked)
    while True:
        page = await client.fetch_page(**asked)
        for event in _events(page, output.reads_envelopes):
            output.event(event)
            shown += not event.is_control
            if shown == count:
                return
        if page.ended or not (page.events or asked["wait_s"]):
            return
        asked |= {"last_event_id": page.next, "last": None, "since": None}


def _events(page: EventPage, with_envelopes: bool) -> Iterator[ReceivedEvent]:
    """The events of a page as a stream would have them."""
    if page.gap is not None:
        gap = page.gap._asdict()
        gap["from"] = gap.pop("resumes_from")
        yield ReceivedEvent(json.dumps(gap), GAP, page.next)
    for one in page.events:
        data = _enveloped(one) if with_envelopes else as_text(one.data)
        yield ReceivedEvent(data, one.event or DEFAULT_TYPE, one.id or "")


def _enveloped(one: Envelope) -> str:
    topics = one.topics
    members = {
        "topic": topics[0] if len(topics) == 1 else list(topics),
        "id": one.id,
        "event": one.event,
        "data": one.data,
        "meta": dict(one.meta) or None,
        "time": one.time_ms,
    }
    return json.dumps(members)
