"""Statistics for open consoles: one frame a second, and the last 15 minutes.

All consoles share the frame, so a hundred of them cost about as much as one. Its events have no
position, no id and no history. They are sent directly to the streams that were opened here, so no
selector matches them.
"""

from collections.abc import Callable
from typing import Final

from fastsse._core import raw_frame
from fastsse.api.admin.access import ConsoleAccess
from fastsse.api.health import no_figures
from fastsse.api.rate_limits import RequestLimits
from fastsse.api.ticket_streams import Terms
from fastsse.control.stats import StatsClient
from fastsse.errors import FastsseError
from fastsse.http.request import Request
from fastsse.http.responses import EVENT_STREAM, STATUS_LINES, Response, json_response
from fastsse.http.router import Exchange, Paths, Route
from fastsse.hub.streams import Streams
from fastsse.reserved import CONSOLE_TOPIC
from fastsse.subscriptions import HEAD, Dialect, Subscription

__all__ = ["LiveStats"]

# No event has this topic, and no client can publish to it.
_SUBSCRIPTION: Final = Subscription(
    (CONSOLE_TOPIC,),
    HEAD,
    dialect=Dialect(opens=True, has_control_events=False, initial_id="false"),
)
_HEAD: Final = Response(STATUS_LINES[200] + EVENT_STREAM)


class LiveStats:
    """The consoles of one worker. Loop thread only.

    Arguments:
        streams: opens and sends.
        limits: the request limits of clients.
    """

    def __init__(self, streams: Streams, limits: RequestLimits) -> None:
        self._streams = streams
        self._limits = limits
        self._watching: dict[int, None] = {}

    def __len__(self) -> int:
        """Number of open consoles."""
        return len(self._watching)

    def paths(self, access: ConsoleAccess, stats: StatsClient) -> Paths:
        """The routes of the stream, and of the last 15 minutes."""

        def watch(request: Request, exchange: Exchange) -> None:
            self._limits.take_request(request, None)
            access.allow(request, exchange, "read", lambda _: self._open(request, exchange))

        def look_back(request: Request, exchange: Exchange) -> None:
            self._limits.take_request(request, None)
            access.allow(request, exchange, "read", lambda _: stats.history(_answered(exchange)))

        stats.on_live = self.on_stats
        return {
            b"/admin/live": {b"GET": Route(watch)},
            b"/admin/history": {b"GET": Route(look_back)},
        }

    def on_stats(self, point: bytes) -> None:
        """Sends the figures of this second to every console. O(consoles), and one encoding."""
        frame = raw_frame(b"event: stats\ndata: %b\n\n" % point)
        for handle in list(self._watching):
            if not self._streams.send_direct(handle, frame):
                del self._watching[handle]

    def on_stream_closed(self, handle: int) -> None:
        """A stream ended."""
        self._watching.pop(handle, None)

    def _open(self, request: Request, exchange: Exchange) -> None:
        if request.method == b"HEAD":
            exchange.respond(_HEAD)
            return
        request.terms = Terms(b"", self._opened)
        # The rights end the stream when the token expires or is revoked.
        exchange.stream(_SUBSCRIPTION, request.rights)

    def _opened(self, handle: int) -> None:
        self._watching[handle] = None


def _answered(exchange: Exchange) -> Callable[[bytes | FastsseError], None]:
    def done(answer: bytes | FastsseError) -> None:
        if isinstance(answer, FastsseError):
            exchange.fail(no_figures(answer))
        else:
            exchange.respond(json_response(answer))

    return done
