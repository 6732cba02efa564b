"""One stream under observation: every byte that arrives is noted with its time."""

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import httpx

from fastsse.client.decoder import Decoder, ReceivedEvent
from fastsse.client.errors import EventTooLarge
from fastsse.client.http import CONNECT_TIMEOUT_S, Params, reason_of, request_headers

_LINE_END = re.compile(rb"\r\n|\r|\n")
_EVENT_BYTES_MAX = 4 * 1024 * 1024
# What browsers offer; a proxy that compresses for them is to do it for us.
AS_BROWSERS = "gzip, deflate, br, zstd"
PLAIN = "identity"


@dataclass(frozen=True, slots=True)
class End:
    """A stream ended from the other side, so many seconds after its request was sent."""

    age_s: float
    silence_s: float
    reason: str


class Stream:
    """A GET whose answer is read in the background until it ends or `close`.

    Arguments:
        client: an httpx client; it stays open.
        url, params, headers: of the request.
        encodings: `Accept-Encoding`.

    Times are those of the running loop. `headers` are None until the head is there.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        url: str,
        params: Params,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        encodings: str = AS_BROWSERS,
    ) -> None:
        self._client = client
        target = httpx.URL(url)
        wanted = {"Accept": "text/event-stream", "Accept-Encoding": encodings, **(headers or {})}
        self._request = client.build_request(
            "GET",
            target.copy_with(params=target.params.merge(params)),
            headers=request_headers(token, wanted),
            timeout=httpx.Timeout(CONNECT_TIMEOUT_S, read=None),
        )
        self._loop = asyncio.get_running_loop()
        self._decoder = Decoder(_EVENT_BYTES_MAX)
        self._tail = b""
        self._news = asyncio.Event()
        self.status = 0
        self.headers: httpx.Headers | None = None
        self.head_at = 0.0
        self.arrivals: list[float] = []
        self.events: list[tuple[float, ReceivedEvent]] = []
        self.comments: list[tuple[float, bytes]] = []
        self.body = b""
        self.end: End | None = None
        self.started_at = self._loop.time()
        self._task = asyncio.create_task(self._run())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cut the connection, if it is there."""
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()

    async def until(self, condition: Callable[[], bool], patience_s: float) -> bool:
        """Waits until something that arrived makes `condition` true; False when it does not."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                while not condition() and self.end is None:
                    self._news.clear()
                    await self._news.wait()
        return condition()

    @property
    def last_event_id(self) -> str:
        """What a client would resume with."""
        return self._decoder.last_event_id

    @property
    def content_encoding(self) -> str:
        """`gzip`, or nothing."""
        found = "" if self.headers is None else self.headers.get("content-encoding", "")
        return "" if found.lower() == PLAIN else found.lower()

    @property
    def is_readable(self) -> bool:
        """Whether the answer comes in an encoding that can be decoded here."""
        supported = self._client.headers.get("accept-encoding", "")
        return not self.content_encoding or self.content_encoding in supported

    @property
    def worst_gap_s(self) -> float:
        """The longest time in which nothing arrived, up to now or the end."""
        ended_at = self._loop.time() if self.end is None else self.started_at + self.end.age_s
        moments = [self.head_at or self.started_at, *self.arrivals, ended_at]
        return max(after - before for before, after in pairwise(moments))

    async def _run(self) -> None:
        reason = "ended"
        try:
            response = await self._client.send(self._request, stream=True)
            try:
                await self._read(response)
            finally:
                await response.aclose()
        except httpx.RequestError as error:
            reason = reason_of(error)
        except EventTooLarge as error:
            reason = str(error)
        now = self._loop.time()
        last = self.arrivals[-1] if self.arrivals else self.head_at or self.started_at
        self.end = End(now - self.started_at, now - last, reason)
        self._news.set()

    async def _read(self, response: httpx.Response) -> None:
        self.status, self.headers = response.status_code, response.headers
        self.head_at = self._loop.time()
        self._news.set()
        async for chunk in response.aiter_bytes():
            self._take(chunk, self._loop.time())
            self._news.set()

    def _take(self, chunk: bytes, now: float) -> None:
        self.arrivals.append(now)
        self.body = (self.body + chunk)[:1024]
        *lines, self._tail = _LINE_END.split(self._tail + chunk)
        self.comments += [(now, line[1:].strip()) for line in lines if line.startswith(b":")]
        self.events += [(now, event) for event in self._decoder.feed(chunk)]
