"""Sends requests to addresses that others chose: guarded, signed, with deadlines and retries."""

import asyncio
import email.utils
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

from fastsse.outbound.guard import AddressGuard, AddressRefused
from fastsse.outbound.signing import Signer

if TYPE_CHECKING:
    import httpx

__all__ = ["Answer", "OutboundClient", "OutboundError", "OutboundOptions"]

# Statuses after which the same request may succeed later.
_LATER: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_FIRST_WAIT_S: Final = 0.5


class OutboundError(Exception):
    """A request without a usable answer. The text is for the log.

    Attributes:
        is_final: whether a retry is pointless.
        after_s: the pause that the receiver asked for, or None.
        status: of the answer; None without an answer.
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
        timeout_s: for one try, from resolving the name to the last byte of the answer.
        tries: the most times that a request is sent.
        wait_max_s: the longest pause between two tries; it doubles from 0.5 s.
        answer_bytes_max: a longer answer is an error.
        connections: the most open connections.
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
        # Imported here, so that a server without outbound requests does not load it.
        from fastsse.outbound.transport import FAULTS, open_client

        self._faults: Final = FAULTS
        self._client = open_client(guard, options.connections)

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
        same in every try, so that the receiver recognises a repeat. Raises OutboundError."""
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
        except self._faults as fault:
            raise _Later(_reason(fault)) from None

    async def _try(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        if urlsplit(url).scheme not in ("http", "https"):
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

    async def _read(self, response: "httpx.Response") -> bytes:
        answer = bytearray()
        # Not decompressed: a small answer may unpack to a very large one.
        async for piece in response.aiter_raw():
            answer += piece
            if len(answer) > self._options.answer_bytes_max:
                raise OutboundError("the answer is too long", is_final=True)
        return bytes(answer)

    def wait_s(self, tries: int, error: OutboundError) -> float:
        """The pause after this number of tries: random, or the one that the receiver asked for."""
        after_s, most_s = error.after_s, self._options.wait_max_s
        grown_s: float = min(_FIRST_WAIT_S * 2.0 ** min(tries - 1, 30), most_s)
        wait_s = grown_s * self._rand.uniform(0.5, 1)
        return wait_s if after_s is None else min(max(wait_s, after_s), most_s)


class _Later(OutboundError):
    """A request that may succeed later."""


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
