"""`GET /events?wait=…`: a page of history as JSON or NDJSON, now or when the next event comes.

Equal answers share the encoded events, which are envelopes, as with `envelope=json`. With gzip they
share the whole answer.
"""

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

import orjson

from fastsse._core import Frame
from fastsse.api.parameters import NOTE
from fastsse.api.rate_limits import LimitedAccess
from fastsse.api.warnings import warning_lines
from fastsse.auth.rights import Rights
from fastsse.errors import FastsseError, InvalidSubscription, Unavailable
from fastsse.http.codings import GZIP, VARY, accepts_gzip, gzip_parts
from fastsse.http.problems import Problem, retry_problem
from fastsse.http.request import Request
from fastsse.http.responses import NOT_STORED, Response
from fastsse.http.router import Exchange
from fastsse.hub.polls import PollPage, Polls
from fastsse.log import AccessLog
from fastsse.positions import format_position
from fastsse.subscriptions import Subscription
from fastsse.units import parse_duration_s

__all__ = ["WAIT_S_MAX", "Polling", "read_wait"]

#: Longer than most proxies wait for an answer.
WAIT_S_MAX: Final = 60.0
_JSON: Final = b"Content-Type: application/json\r\n"
_NDJSON: Final = b"Content-Type: application/x-ndjson\r\n"
# One line in an envelope, whatever the data.
_DATA: Final = re.compile(rb"^data: (.*)$", re.MULTILINE)
_SHARED_MAX: Final = 64
# Smaller parts of an answer are copied into it.
_PIECE_BYTES_MIN: Final = 16 * 1024
# Below it the head of gzip and a packet with little in it save nothing.
_GZIP_MIN_BYTES: Final = 512


def read_wait(text: str | None) -> float | None:
    """Seconds to wait; None for a stream. Raises InvalidSubscription."""
    if text is None:
        return None
    try:
        wait_s = 0.0 if text == "0" else parse_duration_s(text)
    except ValueError:
        wait_s = -1.0
    if not 0 <= wait_s <= WAIT_S_MAX:
        raise InvalidSubscription("wait", f"must be 0, or a time up to {WAIT_S_MAX:g}s such as 25s")
    return wait_s


class Polling:
    """Answers polls. Loop thread only.

    Arguments:
        polls: reads and waits.
        access: decides who may subscribe, and counts each request.
        log: logs polls with unknown parameters.
        now_s: the clock of `Polls.sweep`.
    """

    def __init__(
        self,
        polls: Polls,
        access: LimitedAccess,
        log: AccessLog,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.access: Final = access
        #: Number of polls with unknown parameters.
        self.doubtful = 0
        self._log: Final = log
        self._polls = polls
        self._now_s = now_s
        # The events of the newest pages, encoded, by page and form; and whole answers with gzip.
        self._shared: OrderedDict[tuple[Frame, bool], list[bytes]] = OrderedDict()
        self._packed: OrderedDict[tuple[Frame, bool, bytes], bytes] = OrderedDict()

    def answer(
        self,
        request: Request,
        subscription: Subscription,
        rights: Rights | None,
        exchange: Exchange,
        wait_s: float,
    ) -> None:
        """Answers a poll once, now or later."""
        if not exchange.may_wait:
            return
        form = self._form(request, subscription, exchange)

        def done(outcome: PollPage | FastsseError) -> None:
            if isinstance(outcome, Unavailable):
                exchange.fail(_unread(outcome))
            elif isinstance(outcome, FastsseError):
                exchange.fail(outcome)
            else:
                respond(outcome)

        def respond(page: PollPage) -> None:
            try:
                self.access.check_again(rights)
            except FastsseError as error:
                exchange.fail(error)
            else:
                exchange.respond(self._response(page, form))

        if rights is not None and rights.expires_s is not None:
            wait_s = max(0.0, min(wait_s, rights.expires_s - time.time()))
        until_s = self._now_s() + wait_s if wait_s else 0.0
        try:
            request.on_gone = self._polls.open(subscription, rights, until_s, done)
        except Unavailable as error:
            exchange.fail(_unread(error))

    def over(self, request: Request, subscription: Subscription, exchange: Exchange) -> None:
        """Answers a poll that continues after the event that ended its stream."""
        end = {"next": subscription.cursor.text.decode("utf-8", "replace")}
        end |= {"gap": None, "ended": True}  # type: ignore[dict-item]
        form = self._form(request, subscription, exchange)
        exchange.respond(form.response(form.around((), orjson.dumps(end))))

    def _form(self, request: Request, subscription: Subscription, exchange: Exchange) -> "_Form":
        """The form of the answer. Counts and logs unknown parameters."""
        notes = subscription.dialect.notes.decode()
        if notes:
            self.doubtful += 1
            self._log.doubtful(None, exchange.peer(), notes)
        return _form_of(request.headers, notes)

    def _response(self, page: PollPage, form: "_Form") -> Response:
        end = orjson.dumps(
            {
                "next": format_position(page.next).decode(),
                "gap": None if page.gap is None else page.gap.data,
                "ended": page.ended,
            }
        )
        events = () if page.frame is None else self._events(page.frame, form)
        parts = form.around(events, end)
        size = sum(map(len, parts))
        nothing_to_pack = page.frame is None or len(page.secrets) == len(events)
        if not form.is_gzip or nothing_to_pack or size < _GZIP_MIN_BYTES:
            return form.response(_pieces(parts))
        return form.response((self._gzip(page, form, end, parts),), GZIP)

    def _events(self, frame: Frame, form: "_Form") -> Sequence[bytes]:
        """The events of a page, each with what is before or behind it. O(bytes), once for all that
        get it."""
        key = frame, form.is_lines
        events = self._shared.get(key)
        if events is None:
            found = _DATA.findall(frame.body)
            if form.is_lines:
                events = [one + b"\n" for one in found]
            else:
                events = [*found[:1], *(b"," + one for one in found[1:])]
            _keep(self._shared, key, events)
        return events

    def _gzip(self, page: PollPage, form: "_Form", end: bytes, parts: Sequence[bytes]) -> bytes:
        """The answer with gzip, made once for all that get it."""
        assert page.frame is not None
        key = page.frame, form.is_lines, end
        packed = self._packed.get(key)
        if packed is None:
            # The first part is before the events. An envelope is one line, else none is packed.
            is_known = page.frame.events == len(parts) - 2 or not page.secrets
            secrets = [not is_known or n - 1 in page.secrets for n in range(len(parts))]
            packed = gzip_parts(zip(parts, secrets, strict=True))
            _keep(self._packed, key, packed)
        return packed

    def clear(self) -> None:
        """Drops the cache, because an event may be deleted."""
        self._shared.clear()
        self._packed.clear()


class _Form(NamedTuple):
    """How a client wants its answer."""

    is_lines: bool
    is_gzip: bool
    warning: bytes = b""

    def around(self, events: Sequence[bytes], end: bytes) -> Sequence[bytes]:
        """The parts of an answer: one, the events, one."""
        if self.is_lines:
            return (b"", *events, end + b"\n")
        return (b'{"events":[', *events, b"]," + end[1:] + b"\n")

    def response(self, pieces: Sequence[bytes], coding: bytes = b"") -> Response:
        """A response, with the line of its content coding."""
        lines = (_NDJSON if self.is_lines else _JSON) + coding + VARY + NOT_STORED + self.warning
        if sum(map(len, pieces)) < _PIECE_BYTES_MIN:
            return Response.of(200, b"".join(pieces), lines)
        return Response.of(200, b"", lines, pieces)


def _form_of(headers: Mapping[bytes, bytes], notes: str) -> _Form:
    """The form that a request asks for; `notes` are of its parameters, such as unknown ones."""
    return _Form(
        b"application/x-ndjson" in headers.get(b"accept", b"").lower(),
        accepts_gzip(headers.get(b"accept-encoding", b"")),
        warning_lines(line.removeprefix(NOTE) for line in notes.splitlines()),
    )


def _pieces(parts: Sequence[bytes]) -> Sequence[bytes]:
    """Large parts as they are, because other answers have them too; the small ones between them
    joined. O(parts, and bytes of the small ones)."""
    pieces: list[bytes] = []
    small: list[bytes] = []
    for part in parts:
        small.append(part)
        if len(part) >= _PIECE_BYTES_MIN:
            small.pop()
            pieces += (b"".join(small), part) if small else (part,)
            small = []
    return [*pieces, b"".join(small)]


_Key = TypeVar("_Key")
_Made = TypeVar("_Made")


def _keep(cache: OrderedDict[_Key, _Made], key: _Key, made: _Made) -> None:
    """Keeps something made, instead of the oldest."""
    cache[key] = made
    if len(cache) > _SHARED_MAX:
        cache.popitem(last=False)


def _unread(error: Unavailable) -> Problem:
    return retry_problem(error, "History can't be read now. Retry the request later.")
