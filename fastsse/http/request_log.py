"""Counts answered requests, and logs refused ones.

A request is counted by its route and its status. A route is a path of the route table, so there are
few. `other` counts paths that are not served, `unread` counts invalid requests.
"""

from collections import defaultdict
from typing import Final

from fastsse._intake import Tally
from fastsse.errors import StreamRefused
from fastsse.http.problems import Problem
from fastsse.http.request import Request
from fastsse.log import AccessLog
from fastsse.trails import trail_of

__all__ = ["RequestLog"]

_UNREAD: Final = "unread"
_STREAM: Final = b"200"
# Where the status is in `HTTP/1.1 200 OK`.
_STATUS: Final = slice(9, 12)


class RequestLog:
    """The requests of one worker. Loop thread only.

    Arguments:
        access: writes a line for each refused request, within its bounds.
    """

    __slots__ = ("_access", "_counts", "_unsent")

    def __init__(self, access: AccessLog) -> None:
        self._access = access
        self._unsent = 0
        self._counts: defaultdict[tuple[str, bytes], Tally] = defaultdict(Tally)

    def answered(self, request: Request | None, head: bytes) -> None:
        """Counts an answer; `head` begins with the status line. O(1)."""
        self._count(request, head[_STATUS])

    def tally(self, route: str, status: bytes) -> Tally:
        """The count of a route's answers with a status, which is three digits. O(1)."""
        return self._counts[route, status]

    def opened(self, request: Request) -> None:
        """Counts a request that became a stream."""
        self._count(request, _STREAM)

    def refused(self, request: Request | None, problem: Problem, client: str) -> None:
        """Logs why a request is refused; `answered` counts it later. `client` is its address. The
        log line contains nothing from the query, the headers or the body."""
        self._access.refused(
            problem.status, problem.detail, client, field=problem.field, **_what(request)
        )

    def turned_away(self, request: Request, why: StreamRefused, head: bytes, client: str) -> None:
        """As `refused`, for a subscriber that receives a retry time in an answer with this head."""
        if why.reason == "over":
            return  # It has everything.
        status = int(head[_STATUS])
        self._access.refused(status, f"turned away: {why.reason}", client, **_what(request))

    def unsent(self, client: str) -> None:
        """A connection was closed, because its client did not read an answer and others needed the
        memory."""
        self._unsent += 1
        self._access.unsent(client)

    def counters(self) -> dict[str, int]:
        """Requests by route and status, under the names of the metrics."""
        counts = {
            f"requests_{route} {status.decode()}": tally.count
            for (route, status), tally in self._counts.items()
            if tally.count
        }
        return {**counts, "answers_unsent": self._unsent}

    def _count(self, request: Request | None, status: bytes) -> None:
        self.tally(_UNREAD if request is None else request.route, status).count += 1


def _what(request: Request | None) -> dict[str, str]:
    if request is None:
        return {}
    path = request.target.path.decode(errors="replace")
    named = {"method": request.method.decode(), "path": path}
    return {**named, **trail_of(request.headers).fields()}
