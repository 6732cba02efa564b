"""Sends requests to addresses that others chose: guarded, signed, with deadlines and retries."""

import asyncio
import email.utils
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import httpcore
import httpx
from httpcore import AsyncNetworkBackend, AsyncNetworkStream

from fastsse.outbound.guard import AddressGuard, AddressRefused
from fastsse.outbound.signing import Signer
from fastsse.version import __version__

__all__ = ["Answer", "OutboundClient", "OutboundError", "OutboundOptions"]

# Statuses after which the same request may succeed later.
_LATER: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_FIRST_WAIT_S: Final = 0.5
_FAULTS: Final = (httpx.TransportError, httpx.InvalidURL, OSError)


class OutboundError(Exception):
    """A request without a usable answer. The text is for the log.

    Attributes:
        is_final: the same request can't succeed later.
        after_s: the receiver asked for this pause.
        status: of the answer; None: there was none.
    """

    def __init__(
        self,
        text: str,
        *,
        is_final: bool = False,
        after_s: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(text)
        self.status: Final = status
        self.is_final: Final = is_final
        self.after_s: Final = after_s


@dataclass(frozen=True, slots=True)
class OutboundOptions:
    """How requests are sent.

    Attributes:
        timeout_s: for one try, from the name to the last byte of the answer.
        tries: how often a request is sent at most.
        wait_max_s: the longest pause between two tries; it doubles from 0.5 s.
        answer_bytes_max: longer answers are errors.
        connections: open at once.
    """

    timeout_s: float = 10.0
    tries: int = 5
    wait_max_s: float = 60.0
    answer_bytes_max: int = 64 * 1024
    connections: int = 20


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with a 2xx status."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class OutboundClient:
    """Sends requests. Redirects are not followed, because they may lead anywhere; proxies of the
    environment are not used. Loop thread only.

    Arguments:
        guard: decides which addresses may be reached.
        signer: signs every request; None signs none.
        options: limits.
        sleep, now_s, rand: for tests.
    """

    def __init__(
        self,
        guard: AddressGuard,
        signer: Signer | None = None,
        options: OutboundOptions = OutboundOptions(),
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now_s: Callable[[], float] = time.time,
        rand: random.Random | None = None,
    ) -> None:
        self._signer = signer
        self._options = options
        self._sleep = sleep
        self._now_s = now_s
        self._rand = rand or random.Random()
        self._client = httpx.AsyncClient(
            transport=_GuardedTransport(guard, options.connections),
            timeout=None,
            trust_env=False,
            follow_redirects=False,
            headers={"User-Agent": f"fastsse/{__version__}"},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections. Idempotent."""
        await self._client.aclose()

    async def post(
        self,
        url: str,
        body: bytes,
        *,
        message_id: str = "",
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Sends a POST until it is answered with 2xx, at most `tries` times. `message_id` is the
        same in every try, so that the receiver knows a repeat. Raises OutboundError."""
        waits = 0
        while True:
            try:
                return await self.post_once(
                    url, body, message_id=message_id, content_type=content_type, headers=headers
                )
            except _Later as later:
                waits += 1
                if waits >= self._options.tries:
                    raise
                await self._sleep(self.wait_s(waits, later))

    async def post_once(
        self,
        url: str,
        body: bytes,
        *,
        message_id: str = "",
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """As `post`, with one try."""
        sent = {**(headers or {}), "Content-Type": content_type}
        if self._signer is not None:
            sent |= self._signer.sign(message_id, int(self._now_s()), body)
        try:
            async with asyncio.timeout(self._options.timeout_s):
                return await self._try(url, body, sent)
        except TimeoutError:
            raise _Later(f"no answer in {self._options.timeout_s:g} s") from None
        except AddressRefused as refused:
            raise OutboundError(str(refused), is_final=True) from None
        except _FAULTS as fault:
            raise _Later(_reason(fault)) from None

    async def _try(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        if httpx.URL(url).scheme not in ("http", "https"):
            raise OutboundError("the URL is not http or https", is_final=True)
        async with self._client.stream("POST", url, content=body, headers=headers) as response:
            answer = await self._read(response)
        status = response.status_code
        if 200 <= status < 300:
            return Answer(status, dict(response.headers), answer)
        if status in _LATER:
            after_s = _retry_after_s(response.headers, self._now_s())
            raise _Later(f"status {status}", after_s=after_s, status=status)
        raise OutboundError(f"status {status}", is_final=True, status=status)

    async def _read(self, response: httpx.Response) -> bytes:
        answer = bytearray()
        # As it was sent: a small answer may unpack to very much.
        async for piece in response.aiter_raw():
            answer += piece
            if len(answer) > self._options.answer_bytes_max:
                raise OutboundError("the answer is too long", is_final=True)
        return bytes(answer)

    def wait_s(self, tries: int, error: OutboundError) -> float:
        """The pause after so many tries: random within the upper half, or what was asked for."""
        after_s, most_s = error.after_s, self._options.wait_max_s
        grown_s: float = min(_FIRST_WAIT_S * 2.0 ** min(tries - 1, 30), most_s)
        wait_s = grown_s * self._rand.uniform(0.5, 1)
        return wait_s if after_s is None else min(max(wait_s, after_s), most_s)


class _Later(OutboundError):
    """A request that may succeed later."""


class _GuardedTransport(httpx.AsyncBaseTransport):
    """As httpx's own, with a guard where connections are opened."""

    def __init__(self, guard: AddressGuard, connections: int) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(trust_env=False),
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=30.0,
            network_backend=_GuardedNetwork(guard),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """As httpx.AsyncBaseTransport."""
        url = request.url
        given = httpcore.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
        )
        content: Any = request.stream
        try:
            answer = await self._pool.handle_async_request(
                httpcore.Request(
                    request.method,
                    given,
                    headers=request.headers.raw,
                    content=content,
                    extensions=request.extensions,
                )
            )
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise httpx.TransportError(str(error) or type(error).__name__) from error
        return httpx.Response(
            answer.status, headers=answer.headers, stream=_Stream(answer), extensions={}
        )

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._pool.aclose()


class _Stream(httpx.AsyncByteStream):
    """The body of an answer."""

    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> Any:
        try:
            async for piece in self._answer.aiter_stream():
                yield piece
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise httpx.TransportError(str(error) or type(error).__name__) from error

    async def aclose(self) -> None:
        await self._answer.aclose()


class _GuardedNetwork(AsyncNetworkBackend):
    """Connects only to addresses that the guard allows."""

    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> AsyncNetworkStream:
        # TLS still checks the certificate against the name.
        address = await self._guard.resolve(host, port)
        return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        socket_options: Iterable[Any] | None = None,
    ) -> AsyncNetworkStream:
        raise AddressRefused("Unix sockets are not allowed")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def _retry_after_s(headers: Mapping[str, str], now_s: float) -> float | None:
    """`Retry-After`, seconds or a date (RFC 9110 §10.2.3)."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdecimal():
        return float(value[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now_s)
    except ValueError:
        return None


def _reason(fault: Exception) -> str:
    return (str(fault).splitlines() or [""])[0][:200] or type(fault).__name__
