"""`GET /events?wait=…`: a page of history as JSON or NDJSON, now or when the next event comes.

Equal answers share the encoded events, which are envelopes, as with `envelope=json`.
"""

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

import orjson

from fastsse._core import Frame
from fastsse.api.rate_limits import LimitedAccess
from fastsse.auth.rights import Rights
from fastsse.errors import FastsseError, InvalidSubscription, Unavailable
from fastsse.http.problems import Problem
from fastsse.http.request import Request
from fastsse.http.responses import NOT_STORED, Response
from fastsse.http.router import Exchange
from fastsse.hub.polls import PollPage, Polls
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
        now_s: the clock of `Polls.sweep`.
    """

    def __init__(
        self, polls: Polls, access: LimitedAccess, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.access: Final = access
        self._polls = polls
        self._now_s = now_s
        # Events of the newest pages, encoded, by page and form.
        self._shared: OrderedDict[tuple[Frame, bool], bytes] = OrderedDict()

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
        is_lines = _wants_lines(request.headers)

        def done(outcome: PollPage | FastsseError) -> None:
            if isinstance(outcome, Unavailable):
                exchange.fail(_unread(outcome))
            elif isinstance(outcome, FastsseError):
                exchange.fail(outcome)
            else:
                exchange.respond(self._response(outcome, is_lines))

        until_s = self._now_s() + wait_s if wait_s else 0.0
        try:
            self._polls.open(subscription, rights, until_s, done)
        except Unavailable as error:
            exchange.fail(_unread(error))

    def over(self, request: Request, subscription: Subscription, exchange: Exchange) -> None:
        """Answers a poll behind the event that ended its stream."""
        end = {"next": subscription.cursor.text.decode("utf-8", "replace")}
        end |= {"gap": None, "ended": True}  # type: ignore[dict-item]
        exchange.respond(_made(b"", end, is_lines=_wants_lines(request.headers)))

    def _response(self, page: PollPage, is_lines: bool) -> Response:
        end = {
            "next": format_position(page.next).decode(),
            "gap": None if page.gap is None else page.gap.data,
            "ended": page.ended,
        }
        events = b"" if page.frame is None else self._events(page.frame, is_lines)
        return _made(events, end, is_lines=is_lines)

    def _events(self, frame: Frame, is_lines: bool) -> bytes:
        """The events of a page. O(bytes), once for all that get it."""
        key = frame, is_lines
        events = self._shared.get(key)
        if events is None:
            found = _DATA.findall(frame.body)
            events = b"".join([one + b"\n" for one in found]) if is_lines else b",".join(found)
            self._shared[key] = events
            if len(self._shared) > _SHARED_MAX:
                self._shared.popitem(last=False)
        return events

    def clear(self) -> None:
        """Drops the encoded events: something in them may be deleted."""
        self._shared.clear()


def _made(events: bytes, end: Mapping[str, object], *, is_lines: bool) -> Response:
    rest = orjson.dumps(end)
    if is_lines:
        return Response.of(200, events + rest + b"\n", _NDJSON + NOT_STORED)
    return Response.of(200, b'{"events":[%b],%b\n' % (events, rest[1:]), _JSON + NOT_STORED)


def _wants_lines(headers: Mapping[bytes, bytes]) -> bool:
    return b"application/x-ndjson" in headers.get(b"accept", b"").lower()


def _unread(error: Unavailable) -> Problem:
    after = b"Retry-After: %d\r\n" % error.retry_after_s
    detail = "History can't be read now. Retry the request later."
    return Problem(503, detail, header_lines=after, members={"reason": error.reason})
