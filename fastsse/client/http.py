"""What listener and publisher share: addresses, headers, waiting, and answers that say no."""

import errno
import json
import os
import random
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx

from fastsse.client.errors import Refused
from fastsse.version import __version__

Headers = list[tuple[bytes, bytes]]
# httpx's name for a query, invariant as it is.
Params = list[tuple[str, str | int | float | bool | None]]
USER_AGENT = f"fastsse/{__version__}"
DEFAULT_PATH = "/events"
# The ceiling of growing waits, what the server under load tells at most.
WAIT_S_MAX = 60.0
CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 30.0
# Below the server's idle_timeout, so that a request seldom meets a closing connection.
_KEEPALIVE_S = 60.0
_ANSWER_BYTES_MAX = 64 * 1024


def events_url(url: str) -> str:
    """The address to use: a server's alone gets `/events`. Raises ValueError, saying why."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # What no port or no IPv6 address can be.
        is_address = False
    if not is_address:
        raise ValueError(f"{url!r} is not an http:// or https:// address")
    return url.rstrip("/") + DEFAULT_PATH if parts.path in ("", "/") and not parts.query else url


def new_client(uds: str | None) -> httpx.AsyncClient:
    """A client for one server; with `uds` every connection goes to that Unix socket."""
    limits = httpx.Limits(keepalive_expiry=_KEEPALIVE_S)
    return httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(uds=uds, limits=limits) if uds else None,
        limits=limits,
        timeout=httpx.Timeout(CONNECT_TIMEOUT_S, read=ANSWER_TIMEOUT_S),
        follow_redirects=True,
    )


def request_headers(token: str | None, extra: Mapping[str, str] | None) -> Headers:
    """Headers of every request, as bytes: ids and topics may go beyond ASCII."""
    headers = {"User-Agent": USER_AGENT}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return [(name.encode(), value.encode()) for name, value in {**headers, **(extra or {})}.items()]


def growing_wait_s(base_s: float, failures: int, rand: random.Random) -> float:
    """How long to wait after `failures` in a row: doubling from `base_s`, up to half more."""
    ceiling_s = max(base_s, WAIT_S_MAX)
    wait_s = min(base_s * 2.0 ** min(failures - 1, 16), ceiling_s) if failures else base_s
    return wait_s * rand.uniform(1, 1.5)


def reason_of(error: BaseException) -> str:
    """A transport's error in words, its own or those of the system call behind it."""
    if isinstance(error, httpx.ConnectTimeout):
        return "connecting took too long"
    if isinstance(error, httpx.ReadTimeout):
        return "nothing was received for too long"
    if isinstance(error, httpx.RemoteProtocolError):
        return "the connection broke off"
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, OSError) and behind.errno:
            known = behind.errno in errno.errorcode
            return (os.strerror(behind.errno) if known else str(behind.strerror)).lower()
        if isinstance(behind, BaseExceptionGroup):  # Several addresses were tried.
            return reason_of(behind.exceptions[-1])
        behind = behind.__cause__ or behind.__context__
    return str(error).rstrip(".") or type(error).__name__


async def answer_body(response: httpx.Response) -> bytes:
    """A short answer's body; what is beyond a bound is left out."""
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _ANSWER_BYTES_MAX:
            break
    return body


def refusal(response: httpx.Response, body: bytes) -> Refused:
    """An answer that says no, as an exception."""
    detail, field, line = _problem(body)
    status = f"{response.status_code} {response.reason_phrase}".strip()
    return Refused(response.status_code, f"{status}: {detail}" if detail else status, field, line)


def _problem(body: bytes) -> tuple[str, str, int | None]:
    """Detail, field and line of an RFC 9457 problem, as far as they are there."""
    try:
        problem = json.loads(body)
    except ValueError:
        return "", "", None
    if not isinstance(problem, dict):
        return "", "", None
    line = problem.get("line")
    detail = str(problem.get("detail") or problem.get("title") or "")
    return detail, str(problem.get("field", "")), line if isinstance(line, int) else None
