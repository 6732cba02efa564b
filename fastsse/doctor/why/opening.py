"""The stream itself: whether it opens, and what its first bytes say."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import httpx
import orjson

from fastsse.checks import NOTE, OK, WRONG, Check
from fastsse.client.http import new_client
from fastsse.doctor.path.stream import Stream
from fastsse.doctor.why.question import Question

__all__ = ["Opening", "base_of", "open_stream", "ready"]

_UNKNOWN: Final = re.compile(rb"fastsse: the parameter ")
_PROXY_HEADERS: Final = ("via", "server", "x-served-by", "cf-ray", "x-amz-cf-id")
_BUFFERED: Final = "proxy_buffering off (nginx), flush_interval -1 (Caddy); fastsse doctor --url"


class Opening:
    """What came of opening the stream.

    Attributes:
        checks: in order; after a wrong one nothing more is known of the stream.
        headers: of the answer; empty without one.
    """

    def __init__(self) -> None:
        self.checks: list[Check] = []
        self.headers: Mapping[str, str] = {}

    @property
    def is_open(self) -> bool:
        """Whether the stream opened."""
        return all(check.verdict != WRONG for check in self.checks)


def base_of(url: str) -> str:
    """The address of a server, without a path."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, "", "", ""))


async def ready(question: Question) -> Check | None:
    """Whether the server says that it takes streams; None where that can't be asked."""
    async with new_client(None) as client:
        try:
            answer = await client.get(
                f"{base_of(question.url)}/readyz", timeout=question.patience_s
            )
        except httpx.HTTPError:
            return None
    if answer.status_code != 503 or not answer.headers.get("content-type", "").startswith("text"):
        return None
    why = answer.text.strip()[:100]
    return Check(
        "ready",
        WRONG,
        f"The server takes no streams now: {why}.",
        "docs/guides/operating.md#health says what this reason means.",
    )


async def open_stream(question: Question) -> Opening:
    """Opens the stream as the client does, and reads until its first block is there."""
    found = Opening()
    headers = {} if question.origin is None else {"Origin": question.origin}
    if question.event_id is not None:
        headers["Last-Event-ID"] = question.event_id
    async with new_client(None) as client:
        client.follow_redirects = False
        params = [] if "topic=" in urlsplit(question.url).query else [("topic", question.topic)]
        stream = Stream(client, question.url, [*params], token=question.token, headers=headers)
        async with stream:
            came = await stream.until(lambda: stream.headers is not None, question.patience_s)
            if stream.headers is None:
                found.checks.append(_no_answer(question, stream, came))
                return found
            found.headers = dict(stream.headers)
            is_stream = stream.headers.get("content-type", "").startswith("text/event-stream")
            if stream.status != 200 or not is_stream:
                await stream.until(lambda: stream.end is not None, question.patience_s)
                found.checks.append(_status(question, stream))
                return found
            opened = await stream.until(lambda: bool(stream.arrivals), question.patience_s)
            if opened:
                # A gap, a refusal or a note follows at once.
                await stream.until(lambda: bool(stream.events) or stream.end is not None, 0.3)
            found.checks += _opened(question, stream)
        if question.origin is not None and question.headers:
            found.checks.append(await _preflight(client, question, question.origin))
    return found


async def _preflight(client: httpx.AsyncClient, question: Question, origin: str) -> Check:
    """Whether a page may send its headers, as a browser asks."""
    names = ", ".join(question.headers)
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": names.lower(),
    }
    answer = await client.options(question.url, headers=asked, timeout=question.patience_s)
    allowed = {
        name.strip().lower()
        for name in answer.headers.get("access-control-allow-headers", "").split(",")
    }
    refused = [name for name in question.headers if name.lower() not in allowed]
    if not answer.is_success:
        says = f"The preflight of a page that sends {names} gets {answer.status_code}."
        return Check("preflight", WRONG, says, f"--cors-origins {origin}; a proxy may answer it.")
    if refused:
        says = f"A page of {origin} may not send {', '.join(refused)}: its preflight fails."
        do = " ".join(f"--cors-headers {name}" for name in refused)
        return Check("preflight", WRONG, says, f"fastsse serve {do}")
    return Check("preflight", OK, f"Pages of {origin} may send {names}.")


def _no_answer(question: Question, stream: Stream, came: bool) -> Check:
    if stream.end is not None:
        return Check(
            "reach",
            WRONG,
            f"No answer from {base_of(question.url)}: {stream.end.reason}.",
            "Does the process run, on this port? fastsse serve --host 0.0.0.0 listens for other "
            "machines; look at firewalls.",
        )
    return Check(
        "buffering",
        WRONG,
        f"The connection stands, but no head came in {question.patience_s:g} s: something holds "
        "the answer back, or the accept queue is full.",
        f"{_BUFFERED}; nstat -az TcpExtListenOverflows on the server.",
    )


def _problem(stream: Stream) -> Mapping[str, Any]:
    try:
        problem = orjson.loads(stream.body)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) and "status" in problem else {}


def _status(question: Question, stream: Stream) -> Check:
    """An answer that is no stream."""
    assert stream.headers is not None
    status, problem = stream.status, _problem(stream)
    detail = str(problem.get("detail", ""))
    reason = problem.get("reason")
    says = f"The answer is {status}" + (f": {detail}" if detail else ".")
    if status in (301, 302, 303, 307, 308):
        where = stream.headers.get("location", "")
        return Check(
            "redirect",
            WRONG,
            f"The answer is {status}, a redirect to {where}: some clients follow none.",
            f"Use {where or 'the final URL'}.",
        )
    if status == 200:
        kind = stream.headers.get("content-type", "without a type")
        return Check(
            "content type",
            WRONG,
            f"The answer is {kind}, not an event stream: a login page or another server.",
            f"curl -i '{question.url}' shows it; the path of fastsse is /events.",
        )
    if status == 204:
        return Check(
            "over",
            WRONG,
            "The topics have ended, and the client has everything (204).",
            "Nothing more comes; publish to another topic.",
        )
    known = {
        401: ("token", "fastsse token explain says why; fastsse token mint makes one."),
        403: ("rights", "fastsse token explain; --cors-origins for pages of other origins."),
        404: ("path", "Use /events or /.well-known/mercure; a proxy may cut off a prefix."),
        405: ("method", "Open streams with GET."),
        406: ("method", "Open streams with GET."),
        421: ("host", f"fastsse serve --allowed-hosts {urlsplit(question.url).hostname}"),
        429: ("limits", "address_streams, address_opens, subject_streams, subject_opens"),
        431: ("head", "max_head, max_headers; are there large cookies?"),
        502: ("proxy", "The proxy does not reach fastsse: look at its error log."),
        504: ("proxy", "The proxy waits for an answer: look at its time-outs and error log."),
    }
    if status == 400:
        field = problem.get("field", "topic")
        return Check("parameters", WRONG, says, f"Correct the parameter {field}.")
    if status == 503 and problem:
        return Check("capacity", WRONG, f"{says} Reason: {reason}.", _capacity(str(reason)))
    if status in known:
        name, do = known[status]
        return Check(name, WRONG, says, do)
    if status >= 500:
        return Check("proxy", WRONG, says, "Look at the error log of the proxy and of fastsse.")
    return Check("answer", WRONG, says, f"curl -iN '{question.url}' shows it.")


def _capacity(reason: str) -> str:
    return {
        "full": "max_connections or the descriptor limit is reached: fastsse doctor; add workers.",
        "limited": "address_streams, address_opens, subject_streams, subject_opens",
        "filters": "max_filters, max_topic_filters",
        "feeds": "Feeds can't be read now: the server's log, and the shared Redis.",
        "draining": "The server is stopping; the client returns by itself.",
        "store": "The store can't be read: the server's log, and /readyz.",
        "access": "Keys of tokens can't be fetched: jwks_url, and the server's log.",
    }.get(reason, "The server's log has a line `Request refused.`")


def _opened(question: Question, stream: Stream) -> Iterator[Check]:
    assert stream.headers is not None
    if not stream.arrivals:
        yield Check(
            "buffering",
            WRONG,
            f"The stream opened, but not a byte of it came in {question.patience_s:g} s: "
            "something buffers it.",
            _BUFFERED,
        )
        return
    yield from _first_events(stream)
    for _, comment in stream.comments:
        if _UNKNOWN.search(comment):
            text = comment.decode(errors="replace").strip()
            yield Check("parameters", NOTE, f"{text}.", "Correct or remove it in the URL.")
    if question.origin is not None:
        yield _cors(question.origin, stream.headers)
    encoding = stream.headers.get("content-encoding")
    if encoding:
        yield Check(
            "compression",
            NOTE,
            f"Something compresses the stream ({encoding}); events wait until a block is full.",
            "Switch compression off for text/event-stream.",
        )


def _first_events(stream: Stream) -> Iterator[Check]:
    kinds = {event.event: event for _, event in stream.events}
    refused, gap = kinds.get("fastsse.refused"), kinds.get("fastsse.gap")
    if refused is not None:
        reason = str(orjson.loads(refused.data).get("reason"))
        yield Check(
            "capacity",
            WRONG,
            f"The server refused the stream for now: {reason}. The client returns by itself.",
            _capacity(reason),
        )
        return
    headers: Mapping[str, str] = stream.headers or {}
    via = [f"{name}: {headers[name]}" for name in _PROXY_HEADERS if name in headers]
    through = f", through a proxy ({'; '.join(via)})" if via else ""
    yield Check("opens", OK, f"The stream opens with 200{through}.")
    if gap is not None:
        reason = str(orjson.loads(gap.data).get("reason"))
        yield Check(
            "resume",
            NOTE,
            f"The stream begins with a gap ({reason}): events before it are missing.",
            "history_age, history_events; or the id is of another service.",
        )


def _cors(origin: str, headers: Mapping[str, str]) -> Check:
    allowed = headers.get("access-control-allow-origin", "")
    if allowed in (origin, "*"):
        return Check("origin", OK, f"Pages of {origin} may read it.")
    has = f"it allows {allowed}" if allowed else "it names no origin"
    return Check(
        "origin",
        WRONG,
        f"A browser hides the answer from pages of {origin}: {has}.",
        f"fastsse serve --cors-origins {origin}",
    )
