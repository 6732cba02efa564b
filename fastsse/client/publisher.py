"""Publishes over HTTP: the methods that all clients have."""

import asyncio
import random
import time
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import httpx
import orjson

from fastsse.client.errors import ClientError, Refused
from fastsse.client.exchanges import Exchanges, Patience
from fastsse.client.gathering import Events, batches
from fastsse.client.http import Params, events_url, refusal, request_headers, sibling_path
from fastsse.client.receipts import Receipt, joined
from fastsse.client.scheduled import ScheduledEvent, read_schedule

DEFAULT_TIMEOUT_S = 30.0
_NDJSON = b"application/x-ndjson"
_TEXT = b"text/plain; charset=utf-8"
_JSON = b"application/json"
_EVENT_STREAM = b"text/event-stream"


class Publisher:
    """Publishes to a server over keep-alive connections.

        async with Publisher("http://127.0.0.1:8080") as publisher:
            receipt = await publisher.publish("news", "hello")

    A request to a busy server (429, 503) is repeated after its `Retry-After` plus a random part. A
    failed connection is retried after growing waits. All waits together take at most `patience_s`.
    If the connection fails after the request was sent, or a proxy answers that it got no answer, it
    is not repeated, because the event could be published twice.

    Arguments:
        url: a server (`http://127.0.0.1:8080`, which gets `/events`), or the address of its events.
        token, headers, uds, client: as of `listen`.
        patience_s: how long all waits of a publish may take together; 0 or more, 30 by default.
        on_wait: called before each wait with the error and the seconds.
        now_s, sleep, rand: for tests.

    Use it on the thread of one event loop only; calls may overlap. Raises ValueError for an invalid
    URL.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        uds: str | None = None,
        client: httpx.AsyncClient | None = None,
        patience_s: float = DEFAULT_TIMEOUT_S,
        on_wait: Callable[[ClientError, float], None] | None = None,
        now_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rand: random.Random | None = None,
    ) -> None:
        self._url = httpx.URL(events_url(url))
        self._own_url = str(self._url)
        self._headers = request_headers(token, headers)
        on_wait = on_wait or (lambda _error, _wait_s: None)
        patience = Patience(patience_s, on_wait, now_s, sleep, rand or random.Random())
        self._exchanges = Exchanges(self._url, uds, client, patience)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        await self._exchanges.aclose()

    async def publish(
        self,
        topics: str | Sequence[str],
        data: str | bytes | Any,
        *,
        event: str | None = None,
        id: str | None = None,
        retry: int | None = None,
        private: bool = False,
        meta: Mapping[str, str | int | float | bool] | None = None,
        end: bool = False,
        key: str | None = None,
        expect: str | None = None,
        ttl: float | str | None = None,
        deliver_at: int | str | None = None,
        delay: float | str | None = None,
        receipt: bool = False,
    ) -> Receipt:
        """Publishes one event to one or several topics.

        Arguments:
            topics: one topic or up to 100, each of 1 to 1,024 bytes.
            data: text and bytes (UTF-8) are sent unchanged, other values as JSON.
            event: the event's type, at most 256 bytes; None: `message`.
            id: an id of your own, at most 256 bytes, instead of one from the server.
            retry: milliseconds after which clients reconnect; the server clamps them to 1 s … 1 h.
            private: only streams whose token grants one of the topics receive the event.
            meta: named values next to the data: at most 32, 4,096 bytes of JSON.
            end: the topics end behind the event.
            key: an event with a known key is not published again. With a key a request whose
                answer is lost is repeated. 1 to 256 characters of printable ASCII.
            expect: the id that the topic's newest event must have; `earliest`: it has none.
            ttl: seconds, or text such as `30s`, after which the event is not sent any more.
            deliver_at: publish it then: a time of RFC 3339, or unix milliseconds.
            delay: publish it after seconds, or text such as `10m`. One of both, at most a year.
            receipt: the result has the number of matching streams (`Receipt.streams`).

        Returns a Receipt. Raises Refused, Unreachable, OutcomeUnknown; TypeError for no JSON value.
        """
        is_text = isinstance(data, str | bytes)
        body = data if is_text else orjson.dumps(data)
        names = [topics] if isinstance(topics, str) else topics
        fields = {
            "event": event,
            "id": id,
            "retry": retry,
            "key": key,
            "expect": expect,
            "ttl": ttl,
            "deliver_at": deliver_at,
            "delay": delay,
        }
        given = {name: value for name, value in fields.items() if value is not None}
        if not body:
            whole: dict[str, Any] = {"topic": list(names), "data": "", **given}
            whole |= {"private": private, "end": end, **({"meta": dict(meta)} if meta else {})}
            return await self._publish_empty(whole, receipt, is_keyed=key is not None)
        switches = {"private": private, "end": end, "receipt": receipt}
        url = self._url_of(names, given, switches, meta)
        return await self._post(url, body, _TEXT if is_text else _JSON, is_keyed=key is not None)

    def _url_of(
        self,
        topics: Sequence[str],
        given: Mapping[str, Any],
        switches: Mapping[str, bool],
        meta: Mapping[str, Any] | None,
    ) -> str:
        """The address of a publish of one event."""
        params: Params = [("topic", name) for name in topics]
        params += [(name, str(value)) for name, value in given.items()]
        params += [(name, "true") for name, is_on in switches.items() if is_on]
        if meta:
            params.append(("meta", orjson.dumps(dict(meta)).decode()))
        joint = "&" if self._url.query else "?"
        return f"{self._own_url}{joint}{urlencode(params)}"  # Faster than the queries of httpx.

    async def _publish_empty(
        self, event: dict[str, Any], receipt: bool, *, is_keyed: bool
    ) -> Receipt:
        """An event without data as an object: an empty body counts as a mistake."""
        url = self._url
        if receipt:
            url = url.copy_with(params=url.params.merge({"receipt": "true"}))
        return await self._post(url, orjson.dumps(event), _JSON, is_keyed=is_keyed)

    async def end_topic(self, topics: str | Sequence[str]) -> str:
        """Ends a topic, or several, and returns the id of the end: they take no more events, and
        streams that follow nothing else are over. Topics that have ended stay as they are.

        Raises as `publish`.
        """
        names = [topics] if isinstance(topics, str) else topics
        params = httpx.QueryParams([("topic", name) for name in names])
        url = self._url.copy_with(path=sibling_path(self._url, "/topics/end"), params=params)
        return (await self._post(url, b"", None)).id

    async def cancel(self, scheduled: str) -> None:
        """Cancels a delayed event (`Receipt.scheduled`).

        Raises as `publish`; Refused with status 404 when it does not wait any more.
        """
        params = httpx.QueryParams({"id": scheduled})
        url = self._url.copy_with(path=sibling_path(self._url, "/schedule"), params=params)
        await self._post(url, b"", None, method="DELETE")

    async def list_scheduled(self) -> list[ScheduledEvent]:
        """The delayed events of topics that this client may publish to: those that wait, in the
        order of their time, then the newest that could not be published, which have a `reason`.
        O(events), 200 a request.

        Raises Refused, Unreachable, OutcomeUnknown.
        """
        waiting: list[ScheduledEvent] = []
        failed: list[ScheduledEvent] = []
        after: str | None = None
        while True:
            params = httpx.QueryParams({} if after is None else {"after": after})
            url = self._url.copy_with(path=sibling_path(self._url, "/schedule"), params=params)
            response, answer = await self._exchanges.send(url, b"", self._headers, "GET")
            if response.status_code != httpx.codes.OK:
                raise refusal(response, answer)
            page, dead, after = read_schedule(answer)
            waiting += page
            failed += dead  # Of the first page; the others have none.
            if after is None:
                return waiting + failed

    async def delete_event(self, topic: str, id: str) -> str:
        """Deletes the event of a topic that has this id, in all its topics, and returns the id of
        the entry that says so. No read that begins after this shows it.

        Raises as `publish`; Refused with status 404 when there is no such event.
        """
        url = self._url.copy_with(params={"topic": topic, "id": id})
        return (await self._post(url, b"", None, method="DELETE")).id

    async def purge_topic(self, topic: str) -> str:
        """As `delete_event`, of all events of a topic. A topic that has ended stays so. Raises as
        `publish`; Refused with status 404 when it has no events."""
        url = self._url.copy_with(path=sibling_path(self._url, "/topics"), params={"topic": topic})
        return (await self._post(url, b"", None, method="DELETE")).id

    async def publish_batch(
        self, events: Iterable[Mapping[str, Any]], *, key: str | None = None
    ) -> Receipt:
        """Publishes events, all or none.

        Arguments:
            events: mappings with the fields `topic`, `data`, `event`, `id`, `retry`, `private`,
                `meta`, `end`, `key`, `expect` and `ttl`. Together at most the server's `max_body`
                (1 MiB by default).
            key: as in `publish_ndjson`.

        Returns the Receipt, with the number of events and the first and last id. Raises as
        `publish`; Refused says in `line` which one is wrong, counted from 1.
        """
        return await self.publish_ndjson(b"\n".join(map(orjson.dumps, events)), key=key)

    async def publish_many(
        self, events: Events, *, on_accepted: Callable[[Receipt], None] | None = None
    ) -> Receipt:
        """Publishes any number of events in their order, many in a request.

        Batches grow with the load: a slow source has each event sent at once, a fast one fills
        batches of up to 5,000 events or 512 KiB. The next batch is encoded while one is sent. Each
        batch is published whole or not at all.

        Arguments:
            events: as for `publish_batch`, from an iterable or an async iterable.
            on_accepted: called with the receipt of each batch.

        Returns the receipt of all; its count is 0 and its ids are empty without events. Raises as
        `publish_batch`, and what `events` raises. The error's `published` is the number of events
        that were accepted before; Refused's `line` counts from the first event.
        """
        whole = Receipt(0, "", "")
        try:
            async for lines in batches(events):
                receipt = await self.publish_ndjson(lines)
                whole = joined(whole, receipt)
                if on_accepted is not None:
                    on_accepted(receipt)
        except ClientError as error:
            error.published = whole.count
            if isinstance(error, Refused) and error.line is not None:
                error.line += whole.count
            raise
        return whole

    async def publish_ndjson(self, lines: bytes, *, key: str | None = None) -> Receipt:
        """Publishes an encoded batch, an object a line, all or none. With `key` (the header
        Idempotency-Key, 1 to 256 characters of printable ASCII) it is stored once, and repeated
        when its answer is lost. Returns and raises as `publish_batch`."""
        return await self._post(self._url, lines, _NDJSON, key=key)

    async def publish_stream(
        self, events: AsyncIterable[Mapping[str, Any]], *, end_on_close: bool = False
    ) -> Receipt:
        """Publishes events as they come, in one request; each as in `publish_batch`. With
        `end_on_close` their topics, at most 100, end when the request is over, also when it is cut.

        What was published stays published: Refused says in `count` how many events that are, and
        after OutcomeUnknown it is not known. Nothing is repeated. Returns the Receipt of all.
        Raises as `publish`.
        """
        params: Params = [("stream", "true")]
        if end_on_close:
            params.append(("end_on_close", "true"))
        url = self._url.copy_with(params=self._url.params.merge(params))
        return await self._post_once(url, _lines_of(events), _NDJSON)

    async def relay(
        self,
        topics: str | Sequence[str],
        stream: AsyncIterable[bytes],
        *,
        event: str | None = None,
        retry: int | None = None,
        private: bool = False,
        own_ids: bool = False,
        meta: Mapping[str, str | int | float | bool] | None = None,
        end_on_close: bool = False,
    ) -> Receipt:
        """Publishes the events of an event stream as they come, in one request.

        Arguments:
            topics: one or several topics.
            stream: the bytes of the stream, in any pieces.
            event: the type of events that have none.
            own_ids: ids of the stream become the events' own; otherwise they are dropped.
            retry, private, meta: as in `publish`, for every event.
            end_on_close: the topics end when the request is over, also when it is cut.

        Returns and raises as `publish_stream`. Source: WHATWG HTML 9.2.6 (how the stream is read).
        """
        names = [topics] if isinstance(topics, str) else topics
        params: Params = [("topic", name) for name in names]
        params += [
            (name, value)
            for name, value, is_given in (
                ("event", event or "", event is not None),
                ("retry", str(retry), retry is not None),
                ("private", "true", private),
                ("ids", "own", own_ids),
                ("end_on_close", "true", end_on_close),
            )
            if is_given
        ]
        if meta:
            params.append(("meta", orjson.dumps(dict(meta)).decode()))
        url = self._url.copy_with(params=self._url.params.merge(params))
        return await self._post_once(url, stream, _EVENT_STREAM)

    async def _post_once(
        self, url: httpx.URL, body: AsyncIterable[bytes], content_type: bytes
    ) -> Receipt:
        headers = [*self._headers, (b"Content-Type", content_type)]
        return await self._exchanges.publish_once(url, body, headers)

    async def _post(
        self,
        url: httpx.URL | str,
        body: str | bytes,
        content_type: bytes | None,
        *,
        key: str | None = None,
        is_keyed: bool = False,
        method: str = "POST",
    ) -> Receipt:
        headers = list(self._headers)
        if content_type is not None:
            headers.append((b"Content-Type", content_type))
        if key is not None:
            headers.append((b"Idempotency-Key", b'"%b"' % key.encode()))
        is_keyed = is_keyed or key is not None
        return await self._exchanges.publish(url, body, headers, is_keyed=is_keyed, method=method)


async def _lines_of(events: AsyncIterable[Mapping[str, Any]]) -> AsyncIterator[bytes]:
    async for event in events:
        yield orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)
