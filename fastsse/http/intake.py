"""Connects a listener to the native intake of single publishes, `fastsse._intake`.

The intake takes a request only if all its parts are known to be valid: target, Host and credentials
were checked before, and the head has the usual shape. All other requests are read by their
connection, which reports the reason of a refusal.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from fastsse._intake import Intake, KnownPublisher, KnownTarget, RunHeaders
from fastsse.auth.rights import Rights
from fastsse.directives import Directives
from fastsse.errors import FastsseError
from fastsse.http.parser import KEPT_NAMES
from fastsse.http.problems import Problem
from fastsse.http.request import Target
from fastsse.http.responses import PUBLISHED_HEAD
from fastsse.trails import request_id_line

if TYPE_CHECKING:
    from fastsse.http.connection import Connection
    from fastsse.http.listener_context import ListenerContext

__all__ = ["Publishes", "make_intake"]


class Publishes(Protocol):
    """The publishes that the intake of a listener may take. Loop thread only."""

    #: The path of the route, for counts.
    route: str
    #: Events with more bytes of data are not taken.
    max_data_bytes: int

    @property
    def publish(self) -> Callable[[Sequence[Any], Callable[[Any], None]], None]:
        """The function that publishes a batch and calls the second argument once, with an object
        that has `positions`, or an error."""

    @property
    def publish_now(self) -> Callable[[Any], Sequence[int] | None]:
        """The function that publishes a batch within the call and returns the positions; None, and
        nothing is done, if `publish` must take it."""

    def target(self, target: Target) -> KnownTarget | None:
        """The event of a target; None if the intake may not take it. Raises Problem or another
        FastsseError for an invalid one."""

    def publisher(self, header: bytes | None) -> KnownPublisher | None:
        """The publisher whose only credentials are an `Authorization` header; None if that is
        not known at once."""

    @property
    def digested(self) -> Callable[[Target, bytes | None], bytes]:
        """The function that gives what begins the digest of requests with an `Idempotency-Key`: of
        a target and the value of `Content-Type`. The body ends it."""

    @property
    def directives(self) -> Callable[..., Directives | None]:
        """The function that reads `If-Match`, and `Idempotency-Key` of the same request. Arguments:
        the KnownTarget, the publisher's rights, the values of both headers and of `Content-Type`,
        each bytes or None, and the body. None if they need a full check."""

    def counts(self, host: str, rights: Rights | None, forwarded: bytes | None) -> bool:
        """Counts a publish for its client; False, without counting, if that is over a limit."""


class _Policy:
    """The policy of a listener and its publishes, for the intake."""

    def __init__(
        self, context: "ListenerContext", publishes: Publishes, appends: str | None
    ) -> None:
        self._appends = appends or ""
        self._context = context
        self._publishes = publishes
        self.publish = publishes.publish
        self.publish_now = publishes.publish_now
        self.publisher = publishes.publisher
        self.directives = publishes.directives
        self.digested = publishes.digested
        self.request_id_line = request_id_line
        #: Counts publishes that were answered with 200.
        self.answered = context.requests.tally(publishes.route, b"200")

    def target(self, raw: bytes) -> KnownTarget | None:
        """The target of a request line without its own id."""
        try:
            return self._publishes.target(self._context.targets.parse(raw))
        except FastsseError:
            return None  # The connection reads the request again and reports the error.

    def counts(
        self, connection: "Connection", rights: Rights | None, headers: RunHeaders | None
    ) -> bool:
        """Counts a publish for its client; False: its connection must refuse it."""
        forwarded = None if headers is None else headers.headers.get(b"x-forwarded-for")
        return self._publishes.counts(connection.host, rights, forwarded)

    def serves_host(self, host: bytes) -> bool:
        """Whether requests with this Host are served."""
        try:
            self._context.hosts.check(host)
        except Problem:
            return False
        return True

    def origin_lines(self, origin: bytes) -> bytes | None:
        """The CORS lines for an origin that may publish; None: not known."""
        lines = self._context.cors.known_lines(origin)
        return None if lines is None else self._context.lines + lines

    def on_appended(self, status: int, count: int) -> None:
        """Counts appends to durable streams that were answered with a status."""
        self._context.requests.tally(self._appends, b"%d" % status).count += count

    def on_failed(self) -> None:
        """Publishing raised an exception that is not a refusal."""
        self._context.failed(None)


def make_intake(
    context: "ListenerContext",
    publishes: Publishes,
    appends: str | None = None,
    *,
    is_traced: bool = False,
) -> Intake:
    """The intake of a listener. `appends` is the route of appends, for counts. `is_traced`: it
    leaves recorded publishes to their connection."""
    lines = context.lines + context.cors.lines({})
    policy = _Policy(context, publishes, appends)
    loop, deadlines = context.loop, context.deadlines
    intake = Intake(policy, KEPT_NAMES, loop, deadlines, PUBLISHED_HEAD, lines, is_traced)
    intake.keeps_forwarded = context.clients.active
    intake.limit(context.limits.head_bytes, context.limits.headers, publishes.max_data_bytes)
    intake.limit(*context.limits)
    return intake
