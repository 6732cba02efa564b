"""The requests of a publisher: repeated while the server is busy."""

import asyncio
import random
from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import dataclass
from urllib.request import getproxies

import httpx

from fastsse.client.errors import ClientError, OutcomeUnknown, Refused, Unreachable
from fastsse.client.http import (
    ANSWER_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    KEEPALIVE_S,
    Headers,
    answer_body,
    growing_wait_s,
    new_client,
    reason_of,
    refusal,
)
from fastsse.client.posting import Answer, AnswerLost, NotConnected, Poster, Unusual
from fastsse.client.receipts import Receipt, read_receipt

__all__ = ["FIRST_WAIT_S", "Exchanges", "Patience"]

# Retried later: too many requests, and overload or drain.
BUSY = (429, 503)
# Of a proxy that has passed the request on, perhaps, and got no answer; 520 to 527 are a CDN's.
LOST = (502, 504, *range(520, 528))
FIRST_WAIT_S = 0.5


@dataclass(frozen=True, slots=True)
class Patience:
    """How a busy server is waited for.

    Attributes:
        patience_s: how long all waits take at most.
        on_wait: called with the reason and the seconds before each wait.
        now_s, sleep, rand: time and chance.
    """

    patience_s: float
    on_wait: Callable[[ClientError, float], None]
    now_s: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    rand: random.Random


class Exchanges:
    """Requests to one server over keep-alive connections. One event loop.

    Arguments:
        url: the address of its events.
        uds, client: as of Publisher.
        patience: how a busy server is waited for.
    """

    def __init__(
        self,
        url: httpx.URL,
        uds: str | None,
        client: httpx.AsyncClient | None,
        patience: Patience,
    ) -> None:
        self.patience = patience
        self.client = new_client(uds) if client is None else client
        self._owns_client = client is None
        self._poster = _poster(url, uds) if client is None else None
        self._netloc = url.netloc
        # The part of the URL before the path.
        self._origin = f"{url.scheme}://{url.netloc.decode()}"
        self._where = f"unix:{uds}" if uds else str(url)

    async def aclose(self) -> None:
        """Closes the connections. Idempotent."""
        if self._poster is not None:
            self._poster.close()
        if self._owns_client:
            await self.client.aclose()

    async def publish(
        self,
        url: httpx.URL | str,
        body: str | bytes,
        headers: Headers,
        *,
        is_keyed: bool,
        method: str = "POST",
    ) -> Receipt:
        """Sends a publish, and again while the server is busy or can't be reached; with a key also
        when its answer is lost. Raises Refused, Unreachable, OutcomeUnknown."""
        limits = self.patience
        deadline_s = limits.now_s() + limits.patience_s
        failures = 0
        while True:
            failures += 1
            wait_s = growing_wait_s(FIRST_WAIT_S, failures, limits.rand)
            try:
                return await self.publish_once(url, body, headers, method)
            except Refused as refused:
                if refused.status not in BUSY:
                    raise
                problem: ClientError = refused
                if refused.retry_after_s is not None:
                    wait_s = refused.retry_after_s * limits.rand.uniform(1, 1.5)
            except OutcomeUnknown as error:
                if not is_keyed:
                    raise
                problem = error
            except Unreachable as error:
                problem = error
            if limits.now_s() + wait_s > deadline_s:
                raise problem
            limits.on_wait(problem, wait_s)
            await limits.sleep(wait_s)

    async def publish_once(
        self,
        url: httpx.URL | str,
        body: str | bytes | AsyncIterable[bytes],
        headers: Headers,
        method: str = "POST",
    ) -> Receipt:
        """As `publish`, without a repeat."""
        response, answer = await self.send(url, body, headers, method)
        if response.status_code in (200, 202):
            return read_receipt(answer, response.headers.get("fastsse-warning", ""))
        refused = refusal(response, answer)
        if refused.status in LOST:
            reason = str(refused).rstrip(".")
            raise OutcomeUnknown(f"{self._where}: {reason}; it may be published or not.")
        raise refused

    async def send(
        self,
        url: httpx.URL | str,
        body: str | bytes | AsyncIterable[bytes],
        headers: Headers,
        method: str = "POST",
    ) -> tuple[httpx.Response | Answer, bytes]:
        """One request and its answer. Raises Unreachable, OutcomeUnknown."""
        poster = self._poster
        if poster is not None and isinstance(body, str | bytes):
            try:
                return await self._send_short(poster, url, body, headers, method)
            except Unusual:
                # It was answered, with something like a redirect: nothing was published. Another
                # call may find this at the same time.
                poster.close()
                self._poster = None
        is_short = isinstance(body, str | bytes)
        try:
            async with (
                asyncio.timeout(CONNECT_TIMEOUT_S + ANSWER_TIMEOUT_S if is_short else None),
                self.client.stream(method, url, content=body, headers=headers) as response,
            ):
                answer = await answer_body(response)
        except TimeoutError:
            raise OutcomeUnknown(
                f"{self._where}: no data was received in time; it may be published or not."
            ) from None
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Unreachable(f"{self._where}: {reason_of(error)}.") from None
        except httpx.RequestError as error:
            raise OutcomeUnknown(
                f"{self._where}: {reason_of(error)}; it may be published or not."
            ) from None
        return response, answer

    async def _send_short(
        self, poster: Poster, url: httpx.URL | str, body: str | bytes, headers: Headers, method: str
    ) -> tuple[Answer, bytes]:
        """As `send`, without httpx."""
        text = body.encode() if isinstance(body, str) else body
        parts = url.raw_path if isinstance(url, httpx.URL) else url[len(self._origin) :].encode()
        lines = [b"%b %b HTTP/1.1\r\nHost: %b" % (method.encode(), parts, self._netloc)]
        lines += [b"%b: %b" % line for line in headers]
        head = b"\r\n".join((*lines, b"Content-Length: %d\r\n\r\n" % len(text)))
        try:
            answer = await poster.send(head, text)
        except NotConnected as error:
            raise Unreachable(f"{self._where}: {reason_of(error)}.") from None
        except AnswerLost as error:
            raise OutcomeUnknown(
                f"{self._where}: {reason_of(error)}; it may be published or not."
            ) from None
        return answer, answer.body


def _poster(url: httpx.URL, uds: str | None) -> Poster | None:
    """The sender of short requests; None if httpx must send them: with TLS, or through a proxy."""
    if url.scheme != "http" or url.userinfo or (uds is None and getproxies()):
        return None
    timeouts_s = (CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S)
    return Poster(url.host, url.port or 80, uds, timeouts_s=timeouts_s, keep_s=KEEPALIVE_S)
