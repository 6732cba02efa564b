"""What a server answers to a publish."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from fastsse.client.http import not_ours

__all__ = ["Receipt", "joined", "read_receipt"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to a publish.

    Attributes:
        count: number of accepted events.
        first, last: the ids of the first and the last of them.
        warning: what may be wrong with them (the header `Fastsse-Warning`); empty: nothing.
        duplicates: number of events that were not published again, because their keys are known.
        streams: with `receipt`, the number of matching streams: `node`, `cluster`, and perhaps
            `missing`; None: not known.
        scheduled: the id of a delayed event, for `cancel`; then there is no other id.
    """

    count: int
    first: str
    last: str
    warning: str = ""
    duplicates: int = 0
    streams: Mapping[str, Any] | None = None
    scheduled: str = ""

    @property
    def id(self) -> str:
        """The id of a single event."""
        return self.last


def joined(whole: Receipt, more: Receipt) -> Receipt:
    """The receipt of two publishes, one behind the other."""
    first = whole.first or more.first
    warnings = dict.fromkeys(text for text in (whole.warning, more.warning) if text)
    count, duplicates = whole.count + more.count, whole.duplicates + more.duplicates
    return Receipt(count, first, more.last, "; ".join(warnings), duplicates)


def read_receipt(answer: bytes, warning: str) -> Receipt:
    """The receipt in the body of an answer. Raises Refused if it is no answer of a server."""
    try:
        members = orjson.loads(answer)
        if scheduled := members.get("scheduled") or members.get("cancelled"):
            return Receipt(0, "", "", warning, scheduled=scheduled)
        duplicates = members.get("duplicates", 0)
        if "id" in members:
            streams = members.get("receipt")
            id = members["id"]
            return Receipt(1, id, id, warning, duplicates, streams)
        first, last = members.get("first", ""), members.get("last", "")
        return Receipt(members["count"], first, last, warning, duplicates)
    except (AttributeError, ValueError, KeyError, TypeError):
        raise not_ours() from None
