"""A stream that reconnects and resumes as a browser's EventSource does (WHATWG HTML §9.2)."""

import asyncio
import random
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

import httpx

from fastsse.client.decoder import Decoder, ReceivedEvent
from fastsse.client.errors import ClientError, Refused, Unreachable
from fastsse.client.http import (
    CONNECT_TIMEOUT_S,
    Params,
    answer_body,
    events_url,
    growing_wait_s,
    new_client,
    reason_of,
    refusal,
    request_headers,
)

CONTENT_TYPE = "text/event-stream"
DEFAULT_RETRY_S = 3.0
DEFAULT_IDLE_TIMEOUT_S = 60.0
DEFAULT_EVENT_BYTES_MAX = 16 * 1024 * 1024
# What an EventSource sends (Fetch standard, cache mode `no-store`); servers know it by that.
_HEADERS = {"Accept": CONTENT_TYPE, "Cache-Control": "no-cache"}
# What a header's value can carry (RFC 9110 §5.5); an id outside it goes into the query.
_HEADER_VALUE = re.compile(rb"[\x21-\x7e\x80-\xff](?:[\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?")


@dataclass(frozen=True, slots=True)
class StreamState:
    """`open`, or `waiting` for `wait_s` before it connects again, because of `reason`."""

    kind: Literal["open", "waiting"]
    reason: str = ""
    wait_s: float = 0.0


class Listener:
    """The events of a stream, across connections: `async for event in listen(url, "news")`.

    Reconnects by itself, after the time that the server told and a random part of it, longer
    after each failure in a row, and goes on after the last event. Ends when the server says so
    (204). `async with` waits until the stream is open, and closes it at once when the block
    ends; without it the first event asked for connects. One event loop's thread only.

    Arguments:
        url: a server (`http://127.0.0.1:8080`, which gets `/events`) or any stream's address.
        topics: what to ask for, one or several; none for an address that needs none.
        last_event_id: go on after this event; `earliest` asks for all that is kept.
        last: begin with the newest so many events (0 or more).
        since: begin at a time (RFC 3339) or a span before now (`10m`).
        token: sent as `Authorization: Bearer`.
        headers: more headers.
        uds: a Unix socket to connect to, whatever the address says.
        client: an httpx client of yours, for proxies, TLS and the like; it stays open.
        idle_timeout_s: without a byte for so long the connection counts as dead; None: never.
        max_event_bytes: a larger event ends it with EventTooLarge.
        reconnect: False ends it with the first connection.
        on_state: told when a stream opens and when one is lost; must return soon.
        sleep, rand: for tests.

    `last_event_id` is that of the last event given out: pass it to a later `listen` to go on.
    Raises ValueError for an address that can't be one.
    """

    def __init__(
        self,
        url: str,
        topics: str | Iterable[str] = (),
        *,
        last_event_id: str = "",
        last: int | None = None,
        since: str | None = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        uds: str | None = None,
        client: httpx.AsyncClient | None = None,
        idle_timeout_s: float | None = DEFAULT_IDLE_TIMEOUT_S,
        max_event_bytes: int = DEFAULT_EVENT_BYTES_MAX,
        reconnect: bool = True,
        on_state: Callable[[StreamState], None] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rand: random.Random | None = None,
    ) -> None:
        self._url = events_url(url)
        self._where = f"unix:{uds}" if uds else self._url
        self._topics = [topics] if isinstance(topics, str) else list(topics)
        self._begin = {"last": last, "since": since}
        self._headers = request_headers(token, {**_HEADERS, **(headers or {})})
        self._decoder = Decoder(max_event_bytes, last_event_id)
        self._owns_client = client is None
        self._client = new_client(uds) if client is None else client
        self._timeout = httpx.Timeout(CONNECT_TIMEOUT_S, read=idle_timeout_s)
        self._reconnect = reconnect
        self._on_state = on_state or (lambda _: None)
        self._sleep = sleep
        self._rand = rand or random.Random()
        self._failures = 0
        self._steps = self._run()
        self.last_event_id = last_event_id

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ReceivedEvent:
        """The next event; ends when the server says so (204).

        Raises Refused for any other answer that is no event stream, EventTooLarge, and without
        reconnecting also Unreachable. None of these is worth trying again unchanged.
        """
        while (event := await anext(self._steps)) is None:
            pass
        return event

    async def __aenter__(self) -> Self:
        """Connect; from here on nothing that is published is missed. Raises as `__anext__`."""
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

    async def _run(self) -> AsyncGenerator[ReceivedEvent | None, None]:
        """Events, and None each time that a stream opens."""
        while True:
            reason = "the server ended the stream"
            try:
                async with self._connect() as response:
                    if not await self._accepts(response):
                        return
                    yield None
                    async for chunk in response.aiter_bytes():
                        for event in self._decoder.feed(chunk):
                            self.last_event_id = event.id
                            yield event
                        self.last_event_id = self._decoder.last_event_id
            except (httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
                raise ClientError(f"{self._where}: {reason_of(error)}.") from None
            except httpx.RequestError as error:
                reason = reason_of(error)
                self._failures += 1
            if not self._reconnect:
                if self._failures:
                    raise Unreachable(f"{self._where}: {reason}.")
                return
            await self._wait(reason)

    def _connect(self) -> AbstractAsyncContextManager[httpx.Response]:
        """One request; on what is known of the stream depends where it begins."""
        params: Params = [("topic", topic) for topic in self._topics]
        headers = self._headers
        last_event_id = self._decoder.last_event_id.encode(errors="replace")
        if _HEADER_VALUE.fullmatch(last_event_id):
            headers = [*headers, (b"Last-Event-ID", last_event_id)]
        elif last_event_id:
            params.append(("last_event_id", self._decoder.last_event_id))
        else:
            params += [(key, str(value)) for key, value in self._begin.items() if value is not None]
        url = httpx.URL(self._url)
        return self._client.stream(
            "GET",
            url.copy_with(params=url.params.merge(params)) if params else url,
            headers=headers,
            timeout=self._timeout,
        )

    async def _accepts(self, response: httpx.Response) -> bool:
        """Whether a stream begins. False for the status that ends an EventSource quietly."""
        if response.status_code == 204:
            return False
        if response.status_code != 200:
            raise refusal(response, await answer_body(response))
        content_type = response.headers.get("content-type", "")
        if content_type.split(";")[0].strip().lower() != CONTENT_TYPE:
            raise Refused(200, f"{self._url} answers with {content_type!r}, not an event stream.")
        self._decoder.restart()
        self._failures = 0
        self._on_state(StreamState("open"))
        return True

    async def _wait(self, reason: str) -> None:
        retry_s = DEFAULT_RETRY_S if self._decoder.retry_s is None else self._decoder.retry_s
        wait_s = growing_wait_s(retry_s, self._failures, self._rand)
        self._on_state(StreamState("waiting", reason, wait_s))
        await self._sleep(wait_s)


listen = Listener
