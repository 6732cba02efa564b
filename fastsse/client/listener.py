"""A stream that reconnects and resumes as a browser's EventSource does (WHATWG HTML §9.2)."""

import asyncio
import random
import re
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

import httpx

from fastsse.client.decoder import END, Decoder, ReceivedEvent
from fastsse.client.errors import ClientError, Refused, Unreachable
from fastsse.client.feeds import UNKNOWN, is_too_long, store_feed
from fastsse.client.http import (
    CONNECT_TIMEOUT_S,
    Params,
    events_url,
    growing_wait_s,
    new_client,
    reason_of,
    refusal_of,
    request_headers,
)
from fastsse.client.view import StreamView

CONTENT_TYPE = "text/event-stream"
DEFAULT_RETRY_S = 1.0
# A server may send `retry: 0`; without a wait a client would connect thousands of times a second.
RETRY_S_MIN = 0.1
DEFAULT_IDLE_TIMEOUT_S = 60.0
DEFAULT_EVENT_BYTES_MAX = 16 * 1024 * 1024
# The headers of an EventSource (Fetch standard, cache mode `no-store`), by which servers recognise
# it.
_HEADERS = {"Accept": CONTENT_TYPE, "Cache-Control": "no-cache"}
# Characters of a header value (RFC 9110 §5.5); an id with others is sent in the query.
_HEADER_VALUE = re.compile(rb"[\x21-\x7e\x80-\xff](?:[\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?")


@dataclass(frozen=True, slots=True)
class StreamState:
    """What a stream does, for `on_state`.

    Attributes:
        kind: `open`, or `waiting` before it connects again.
        reason: why it waits, a sentence; empty when it is open.
        wait_s: how long it waits, in seconds.
    """

    kind: Literal["open", "waiting"]
    reason: str = ""
    wait_s: float = 0.0


class Listener:
    """The events of a stream, across connections: `async for event in listen(url, "news")`.

    It reconnects automatically after the retry time of the server plus a random part, which grows
    with each failure in a row, and resumes after the last event. It ends when the server answers
    204. `async with` waits until the stream is open, and closes it at the end of the block. Without
    it, the first event requested connects. Use it on the thread of one event loop only.

    Arguments:
        url: a server (`http://127.0.0.1:8080`, which gets `/events`) or any stream's address.
        topics: one or several topics; none for a URL that needs none. More than 100, or too many
            bytes for a URL, are stored at the server first (`POST /feeds`), up to 10,000.
        last_event_id: resume after this event; `earliest` requests all kept events.
        last: start with this many of the newest events (0 or more).
        last_each: start with this many of the newest events of each topic (1 or more), also when
            `last_event_id` can't be continued. A `fastsse.snapshot` event follows them.
        since: start at a time (RFC 3339) or a span before now (`10m`).
        view: which events are sent, and in which form; None: all, as they were published.
        token: sent as `Authorization: Bearer`.
        headers: more headers.
        uds: a Unix socket to connect to, in place of the host in the URL.
        client: your own httpx client, for proxies or TLS; it stays open.
        idle_timeout_s: a connection without data for this long is lost, 60 by default; None: no
            limit.
        max_event_bytes: a larger event ends it with EventTooLarge; 16 MiB by default.
        reconnect: False ends it after the first connection.
        tries: after so many attempts in a row without an event it raises Unreachable, or Refused;
            None: no bound.
        on_state: called when a stream opens and when one is lost; must return quickly.
        sleep, rand: for tests.

    `last_event_id` is the id of the last returned event: pass it to a later `listen` to resume.
    Raises ValueError for an invalid URL. Source: WHATWG HTML 9.2.
    """

    def __init__(
        self,
        url: str,
        topics: str | Iterable[str] = (),
        *,
        last_event_id: str = "",
        last: int | None = None,
        last_each: int | None = None,
        since: str | None = None,
        view: StreamView | None = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        uds: str | None = None,
        client: httpx.AsyncClient | None = None,
        idle_timeout_s: float | None = DEFAULT_IDLE_TIMEOUT_S,
        max_event_bytes: int = DEFAULT_EVENT_BYTES_MAX,
        reconnect: bool = True,
        tries: int | None = None,
        on_state: Callable[[StreamState], None] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rand: random.Random | None = None,
    ) -> None:
        self._url = events_url(url)
        self._where = f"unix:{uds}" if uds else self._url
        self._topics = [topics] if isinstance(topics, str) else list(topics)
        self._needs_feed = is_too_long(self._topics)
        self._feed: str | None = None
        # In a row.
        self._lost_feeds = 0
        self._begin = {"last": last, "since": since}
        self._last_each = last_each
        self._view = StreamView() if view is None else view
        self._headers = request_headers(token, {**_HEADERS, **(headers or {})})
        self._decoder = Decoder(max_event_bytes, last_event_id)
        self._owns_client = client is None
        self._client = new_client(uds) if client is None else client
        self._timeout = httpx.Timeout(CONNECT_TIMEOUT_S, read=idle_timeout_s)
        # Each byte of a head begins the read timeout again, so the whole head has one.
        self._head_s = None if idle_timeout_s is None else CONNECT_TIMEOUT_S + idle_timeout_s
        self._reconnect = reconnect
        self._tries = tries
        self._on_state = on_state or (lambda _: None)
        self._sleep = sleep
        self._rand = rand or random.Random()
        # In a row: connections that failed, that opened and brought no event, and both.
        self._failures = 0
        self._empty = 0
        self._fruitless = 0
        self._ready: deque[ReceivedEvent] = deque()
        self._steps = self._run()
        self.last_event_id = last_event_id

    async def __aiter__(self) -> AsyncGenerator[ReceivedEvent]:
        """The events, as `__anext__` gives them; cheaper than calls of it."""
        ready = self._ready
        while True:
            while ready:
                event = ready.popleft()
                self.last_event_id = event.id
                yield event
            try:
                ready.extend(await anext(self._steps))
            except StopAsyncIteration:
                return

    async def __anext__(self) -> ReceivedEvent:
        """The next event; ends behind the end of the topics (`fastsse.end`), or when the server
        answers 204.

        Raises Refused for any other answer that is not an event stream, and EventTooLarge; do not
        retry these without a change. A server that is busy (429), fails (5xx) or can't be reached
        is asked again: Refused or Unreachable is raised for it if `reconnect` is False or `tries`
        are over.
        """
        while not self._ready:
            self._ready.extend(await anext(self._steps))
        event = self._ready.popleft()
        self.last_event_id = event.id
        return event

    async def next_events(self) -> list[ReceivedEvent]:
        """The next events that arrived together, one or more; none at the end. Raises as
        `__anext__`."""
        try:
            first = await anext(self)
        except StopAsyncIteration:
            return []
        events = [first, *self._ready]
        self._ready.clear()
        self.last_event_id = events[-1].id
        return events

    async def __aenter__(self) -> Self:
        """Connects; every event published after this is received. Raises as `__anext__`."""
        try:
            await anext(self._steps, None)  # The first step is an open stream, or the end.
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection. Idempotent."""
        await self._steps.aclose()
        if self._owns_client:
            await self._client.aclose()

    async def _run(self) -> AsyncGenerator[list[ReceivedEvent], None]:
        """The events of each piece of a stream; none when a stream opens."""
        while True:
            reason, is_over = "the server ended the stream", False
            failure: ClientError | None = None
            self._fruitless += 1
            try:
                await self._store_feed()
                response = await self._connect()
                try:
                    if not await self._accepts(response):
                        return
                    self._empty += 1
                    yield []
                    async for chunk in response.aiter_bytes():
                        if events := self._without_feed_gap(self._decoder.feed(chunk)):
                            self._fruitless = self._empty = self._lost_feeds = 0
                            last = events[-1]
                            is_over = last.event == END or self._view.is_met(last.event, last.data)
                            yield events
                        self._seen()
                    if is_over:
                        return
                finally:
                    await response.aclose()
            except (httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
                raise ClientError(f"{self._where}: {reason_of(error)}.") from None
            except Refused as error:
                if not error.is_passing:
                    raise
                reason, failure = str(error).rstrip("."), error
            except httpx.RequestError as error:
                reason = reason_of(error)
                failure = Unreachable(f"{self._where}: {reason}.")
                if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                    # The address may be the mistake.
                    reason = f"{self._where}: {reason}"
            self._failures += failure is not None
            if self._tries is not None and self._fruitless >= self._tries:
                raise failure or Unreachable(f"{self._where}: {reason}.")
            if not self._reconnect:
                if failure is not None:
                    raise failure
                return
            if failure is not None or self._lost_feeds != 1:
                await self._wait(reason, failure)

    def _seen(self) -> None:
        """A block without an event may have moved the id."""
        if not self._ready:
            self.last_event_id = self._decoder.last_event_id

    async def _store_feed(self) -> None:
        """Stores a long selection, and again when the server has lost it."""
        if not self._needs_feed or self._feed is not None:
            return
        url = httpx.URL(self._url)
        self._feed = await store_feed(self._client, url, self._topics, self._headers)
        self._needs_feed = self._feed is not None

    def _without_feed_gap(self, events: list[ReceivedEvent]) -> list[ReceivedEvent]:
        """The events without the one that says that the server has lost the feed: the next
        connection stores it again, and goes on after the last event."""
        if self._feed is None or not events or events[0].gap is None:
            return events
        if events[0].gap.reason != UNKNOWN:
            return events
        self._feed = None
        self._lost_feeds += 1
        return events[1:]

    async def _connect(self) -> httpx.Response:
        """One request; it starts after the last known event. The response must be closed.

        `httpx.AsyncClient.stream` is a generator too. A program that leaves its loop has asyncio
        close all generators at once, and one that another closes meanwhile is an error.
        """
        params: Params = [("topic", topic) for topic in self._topics]
        if self._feed is not None:
            params = [("feed", self._feed)]
        params += self._view.params
        headers = self._headers
        last_event_id = self._decoder.last_event_id.encode(errors="replace")
        if _HEADER_VALUE.fullmatch(last_event_id):
            headers = [*headers, (b"Last-Event-ID", last_event_id)]
        elif last_event_id:
            params.append(("last_event_id", self._decoder.last_event_id))
        else:
            params += [(key, str(value)) for key, value in self._begin.items() if value is not None]
        if self._last_each is not None:
            params.append(("last_each", str(self._last_each)))
        url = httpx.URL(self._url)
        request = self._client.build_request(
            "GET",
            url.copy_with(params=url.params.merge(params)) if params else url,
            headers=headers,
            timeout=self._timeout,
        )
        try:
            async with asyncio.timeout(self._head_s):
                return await self._client.send(request, stream=True)
        except TimeoutError:
            raise httpx.ReadTimeout("", request=request) from None

    async def _accepts(self, response: httpx.Response) -> bool:
        """Whether a stream starts. False for 204, which ends an EventSource without an error."""
        if response.status_code == 204:
            return False
        if response.status_code != 200:
            raise await refusal_of(response)
        content_type = response.headers.get("content-type", "")
        if content_type.split(";")[0].strip().lower() != CONTENT_TYPE:
            raise Refused(200, f"{self._url} answers with {content_type!r}, not an event stream.")
        self._decoder.restart()
        self._failures = 0
        self._on_state(StreamState("open"))
        return True

    async def _wait(self, reason: str, failure: ClientError | None) -> None:
        retry_s = DEFAULT_RETRY_S if self._decoder.retry_s is None else self._decoder.retry_s
        # The first connection without an event is no failure: nothing may have been published.
        failures = max(self._failures, self._empty - 1)
        if self._failures or self._empty:
            retry_s = max(retry_s, RETRY_S_MIN)
        wait_s = growing_wait_s(retry_s, failures, self._rand)
        if isinstance(failure, Refused) and failure.retry_after_s is not None:
            wait_s = max(wait_s, failure.retry_after_s * self._rand.uniform(1, 1.5))
        self._on_state(StreamState("waiting", reason, wait_s))
        await self._sleep(wait_s)


listen = Listener
