"""The HTTP client of outbound requests, with a guard where connections are opened."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import httpcore
import httpx
from httpcore import AsyncNetworkBackend, AsyncNetworkStream

from fastsse.outbound.guard import AddressGuard, AddressRefused
from fastsse.version import __version__

__all__ = ["FAULTS", "open_client"]

#: What a request without an answer raises.
FAULTS: Final = (httpx.TransportError, httpx.InvalidURL, OSError)


def open_client(guard: AddressGuard, connections: int) -> httpx.AsyncClient:
    """A client that connects only to addresses that the guard allows.

    Arguments:
        guard: decides which addresses may be reached.
        connections: open at once.
    """
    return httpx.AsyncClient(
        transport=_GuardedTransport(guard, connections),
        timeout=None,
        trust_env=False,
        follow_redirects=False,
        headers={"User-Agent": f"fastsse/{__version__}"},
    )


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
