"""Shared parts of listener and publisher: addresses, headers, waits, and refusals."""

import asyncio
import email.utils
import errno
import json
import os
import random
import ssl
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from fastsse.client.errors import Refused
from fastsse.client.posting import Answer
from fastsse.version import __version__

Headers = list[tuple[bytes, bytes]]
# The type of a query in httpx, which is invariant.
Params = list[tuple[str, str | int | float | bool | None]]
USER_AGENT = f"fastsse/{__version__}"
DEFAULT_PATH = "/events"
# The longest retry time that a loaded server sends.
WAIT_S_MAX = 60.0
# The maximum of growing waits, unless the server asks for a longer one.
GROWN_WAIT_S_MAX = 30.0
CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 30.0
# Below the idle_timeout of the server, so a request rarely uses a closing connection.
KEEPALIVE_S = 60.0
# How a reason begins when the server's certificate was refused.
CERTIFICATE_REFUSED: Final = "the certificate is not accepted"
_ANSWER_BYTES_MAX = 64 * 1024
# Of what a server says in a bad answer.
_QUOTED_CHARS_MAX = 100


def events_url(url: str) -> str:
    """The URL to use: one without a path gets `/events`. Raises ValueError with the reason."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # An invalid port or IPv6 address.
        is_address = False
    if not is_address:
        raise ValueError(f"{url!r} is not an http:// or https:// address")
    return url.rstrip("/") + DEFAULT_PATH if parts.path in ("", "/") and not parts.query else url


def new_client(uds: str | None) -> httpx.AsyncClient:
    """A client for one server; with `uds` every connection goes to that Unix socket."""
    limits = httpx.Limits(keepalive_expiry=KEEPALIVE_S)
    return httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(uds=uds, limits=limits) if uds else None,
        limits=limits,
        timeout=httpx.Timeout(CONNECT_TIMEOUT_S, read=ANSWER_TIMEOUT_S),
        follow_redirects=True,
    )


def request_headers(token: str | None, extra: Mapping[str, str] | None) -> Headers:
    """Headers of every request, as bytes, because ids and topics may have non-ASCII characters."""
    headers = {"User-Agent": USER_AGENT}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return [(name.encode(), value.encode()) for name, value in {**headers, **(extra or {})}.items()]


def growing_wait_s(base_s: float, failures: int, rand: random.Random) -> float:
    """The wait after `failures` in a row: doubles from `base_s`, plus a random part up to half."""
    ceiling_s = max(base_s, GROWN_WAIT_S_MAX)
    wait_s = min(base_s * 2.0 ** min(failures - 1, 16), ceiling_s) if failures else base_s
    return wait_s * rand.uniform(1, 1.5)


def reason_of(error: BaseException) -> str:
    """The text of a transport error, or of the system call that caused it."""
    if isinstance(error, httpx.ConnectTimeout):
        return "the connection attempt timed out"
    if isinstance(error, httpx.ReadTimeout):
        return "no data was received in time"
    if isinstance(error, httpx.RemoteProtocolError):
        text = str(error)
        if "closed" in text or "disconnected" in text:
            return "the connection was closed"
        return f"the answer is not valid HTTP: {text[:_QUOTED_CHARS_MAX]}"
    if isinstance(error, httpx.DecodingError):
        return "the answer could not be decompressed"
    behind: BaseException | None = error
    while behind is not None:
        # Errors of TLS have numbers of their own.
        if isinstance(behind, ssl.SSLCertVerificationError):
            return f"{CERTIFICATE_REFUSED}: {behind.verify_message}"
        if isinstance(behind, ssl.SSLError) and behind.reason == "WRONG_VERSION_NUMBER":
            return "no TLS is spoken there: use http:// instead of https://"
        if isinstance(behind, ssl.SSLError):
            return f"the TLS handshake failed: {behind.reason or behind}"
        if isinstance(behind, OSError) and behind.errno:
            known = behind.errno in errno.errorcode
            return (os.strerror(behind.errno) if known else str(behind.strerror)).lower()
        if isinstance(behind, BaseExceptionGroup):  # Several addresses were tried.
            return reason_of(behind.exceptions[-1])
        behind = behind.__cause__ or behind.__context__
    return str(error).rstrip(".") or type(error).__name__


def sibling_path(events: httpx.URL, path: str) -> str:
    """The path of another route of the server whose events have this address."""
    return events.path.removesuffix("/events") + path


async def answer_body(
    response: httpx.Response,
    bytes_max: int = _ANSWER_BYTES_MAX,
    time_s: float | None = None,
) -> bytes:
    """The body of an answer, cut at a bound. Raises httpx.RequestError: ReadTimeout also for one
    that comes a byte at a time."""
    body = bytearray()
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S if time_s is None else time_s):
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > bytes_max:
                    break
    except TimeoutError:
        raise httpx.ReadTimeout("") from None
    return bytes(body)


async def ask(
    client: httpx.AsyncClient,
    method: str,
    url: httpx.URL | str,
    *,
    answer_s: float = ANSWER_TIMEOUT_S,
    bytes_max: int = _ANSWER_BYTES_MAX,
    **request: Any,
) -> tuple[httpx.Response, bytes]:
    """A request and its answer, whose body is cut at a bound. Raises httpx.RequestError."""
    timeout = httpx.Timeout(CONNECT_TIMEOUT_S, read=answer_s)
    try:
        async with (
            asyncio.timeout(CONNECT_TIMEOUT_S + answer_s),
            client.stream(method, url, timeout=timeout, **request) as response,
        ):
            return response, await answer_body(response, bytes_max, answer_s)
    except TimeoutError:
        raise httpx.ReadTimeout("") from None


async def refusal_of(response: httpx.Response) -> Refused:
    """The exception for a refusal whose body is not read yet."""
    try:
        body = await answer_body(response)
    except httpx.RequestError:
        body = b""  # The status says what the body would explain.
    return refusal(response, body)


def refusal(response: httpx.Response | Answer, body: bytes) -> Refused:
    """The exception for a refusal."""
    problem = _problem(body)
    detail = str(problem.get("detail") or problem.get("title") or "")
    status = f"{response.status_code} {response.reason_phrase}".strip()
    line, count = problem.get("line"), problem.get("count")
    refused = Refused(
        response.status_code,
        f"{status}: {detail}" if detail else status,
        str(problem.get("field", "")),
        line if isinstance(line, int) else None,
        count if isinstance(count, int) else 0,
        str(problem.get("last", "")),
    )
    refused.retry_after_s = _retry_after_s(response.headers.get("retry-after", "").strip())
    return refused


def not_ours() -> Refused:
    """The exception for a 200 that another program has sent, such as a proxy."""
    return Refused(200, "The answer is not from a fastsse server.")


def _retry_after_s(value: str) -> float | None:
    """`Retry-After`, seconds or a date (RFC 9110 §10.2.3), up to a bound."""
    if value.isascii() and value.isdecimal():
        return min(float(value[:9]), WAIT_S_MAX)
    try:
        until_s = email.utils.parsedate_to_datetime(value).timestamp()
    except ValueError:
        return None
    return min(max(until_s - time.time(), 0.0), WAIT_S_MAX)


def _problem(body: bytes) -> dict[str, Any]:
    """The members of an RFC 9457 problem; none if it is not one."""
    try:
        problem = json.loads(body)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}
