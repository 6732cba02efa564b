"""The query of a publish: the fields of its event, and how its body is published."""

from typing import Final, NamedTuple

from fastsse.api.access import CREDENTIAL_NAMES
from fastsse.directives import Directives, directives_of, is_delayed
from fastsse.errors import InvalidEvent
from fastsse.events import DATA_TEXT, FIELDS, Event
from fastsse.http.request import SWITCHES, Target

__all__ = ["PublishQuery", "check_relay", "event_of_query", "event_with", "read_query"]

# The data of such a publish is its body.
_QUERY_FIELDS: Final = tuple(name for name in FIELDS if name != "data")
# Parameters that say how a body is published; the others describe its events.
_WAYS: Final = ("stream", "ids", "end_on_close", "receipt")
_PARAMETERS: Final = (*_QUERY_FIELDS, *_WAYS)
_IDS: Final = {"drop": False, "own": True}


class PublishQuery(NamedTuple):
    """The query of a publish: arguments of Event, and how the body is published.

    `stream` is None if it is not given, and so is `own_ids`.
    """

    topics: str | tuple[str, ...]
    event: str | None
    id: str | None
    retry: str | None
    private: bool
    meta: str | None
    stream: bool | None = None
    own_ids: bool | None = None
    directives: Directives | None = None
    ends_on_close: bool = False
    receipt: bool = False


def event_of_query(target: Target) -> Event | None:
    """The event that a query describes, with empty data; None if the query has no topic, or says
    how the body is published. Raises InvalidEvent."""
    query = read_query(target)
    is_plain = query.topics and query.stream is None and query.own_ids is None
    is_plain = is_plain and not query.ends_on_close and not query.receipt
    is_plain = is_plain and not is_delayed(query.directives)
    return event_with(query, b"", DATA_TEXT) if is_plain else None


def event_with(query: PublishQuery, data: bytes, kind: int) -> Event:
    """The event of a query with this data, of the kind DATA_TEXT or DATA_JSON. Raises
    InvalidEvent."""
    topics, name, event_id, retry, private, meta = query[:6]
    return Event(
        topics,
        data,
        name,
        event_id,
        retry,
        private,
        meta=meta,
        data_kind=kind,
        directives=query.directives,
    )


_NOT_IN_QUERY: Final = PublishQuery((), None, None, None, False, None)


def read_query(target: Target) -> PublishQuery:
    """The query of a publish. Raises InvalidEvent for names that are unknown, repeated or used
    without `topic`."""
    topics = tuple(value for name, value in target.pairs if name == "topic")
    chosen: dict[str, str] = {}
    for name, value in target.pairs:
        if name in CREDENTIAL_NAMES:
            continue
        if name not in _PARAMETERS:
            raise InvalidEvent(name, f"is unknown; allowed are {', '.join(_PARAMETERS)}")
        if name in chosen:
            raise InvalidEvent(name, "must be given once")
        if name != "topic":
            chosen[name] = value
    stream, own_ids = _ways(chosen)
    ends_on_close = _switch(chosen, "end_on_close")
    receipt = _switch(chosen, "receipt")
    if receipt and (stream or ends_on_close):
        raise InvalidEvent("receipt", "can't be combined with stream or end_on_close")
    if topics:
        # A single topic is checked faster than a list of one.
        named = topics[0] if len(topics) == 1 else topics
        private, ends = _switch(chosen, "private"), _switch(chosen, "end")
        directives = directives_of(ends=ends, **_texts(chosen))
        texts = chosen.get("event"), chosen.get("id"), chosen.get("retry")
        meta = chosen.get("meta")
        return PublishQuery(
            named, *texts, private, meta, stream, own_ids, directives, ends_on_close, receipt
        )
    of_lines = {"stream", "end_on_close"}
    if stream and chosen.keys() <= of_lines:
        return _NOT_IN_QUERY._replace(stream=True, ends_on_close=ends_on_close)
    for name in chosen.keys() - {"stream", "receipt"}:
        raise InvalidEvent(name, "requires topic in the query too")
    return _NOT_IN_QUERY._replace(receipt=True) if receipt else _NOT_IN_QUERY


def _texts(chosen: dict[str, str]) -> dict[str, str | None]:
    names = ("key", "expect", "ttl", "deliver_at", "delay")
    return {name: chosen.get(name) for name in names}


def _switch(chosen: dict[str, str], name: str) -> bool:
    value = SWITCHES.get(chosen.get(name, "false").lower())
    if value is None:
        raise InvalidEvent(name, "must be true or false")
    return value


def _ways(chosen: dict[str, str]) -> tuple[bool | None, bool | None]:
    """`stream`, and whether `ids` are own. Raises InvalidEvent."""
    stream: bool | None = None
    if "stream" in chosen:
        stream = SWITCHES.get(chosen["stream"].lower())
        if stream is None:
            raise InvalidEvent("stream", "must be true or false")
    if "ids" in chosen and chosen["ids"] not in _IDS:
        raise InvalidEvent("ids", f"must be {' or '.join(_IDS)}")
    return stream, _IDS.get(chosen.get("ids", ""))


def check_relay(query: PublishQuery) -> None:
    """Checks the query of an event stream. Raises InvalidEvent."""
    if not query.topics:
        raise InvalidEvent("topic", "is missing; an event stream needs topic in the query")
    if query.stream is False:
        raise InvalidEvent("stream", "must be true for an event stream, which has no end")
    if query.id is not None:
        raise InvalidEvent("id", "must not be given for an event stream; use ids=own or ids=drop")
    if query.directives is not None:
        asked = query.directives
        given: dict[str, object] = {
            "end": asked.ends or None,
            "key": asked.key,
            "expect": asked.expect,
            "deliver_at": asked.deliver_at_ms,
            "delay": asked.delay_ms,
        }
        name = next((name for name, value in given.items() if value is not None), "ttl")
        raise InvalidEvent(name, "must not be given for an event stream")
