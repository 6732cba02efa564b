"""Publishes the events of a body while it arrives.

One batch is published at a time. Events that arrive meanwhile are the next batch, and nothing more
is read until that is published, so a slow store slows the publisher down. After an error or a lost
connection the earlier events stay published, and the answer or the log has their number.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import orjson

from fastsse.api.body_events import BodyEvents
from fastsse.api.warnings import warning_lines, warnings_on
from fastsse.auth.rights import Rights
from fastsse.entries import kinds_of
from fastsse.errors import BadRequest, Conflict, FastsseError, InvalidEvent
from fastsse.events import EVENT_TOPICS_MAX, Event
from fastsse.http.problems import Problem, problem_of
from fastsse.http.request import Request
from fastsse.http.responses import NOT_STORED, STATUS_LINES, json_response
from fastsse.http.router import BodyExchange
from fastsse.hub import Published

__all__ = ["Gate", "PublishStream", "StreamCounts"]

# A token is checked again when the last check is older than this.
CHECK_S: Final = 1.0
_WARNINGS_MAX: Final = 8
_NDJSON: Final = b"application/x-ndjson"
_LINES_HEAD: Final = STATUS_LINES[200] + b"Content-Type: application/x-ndjson\r\n" + NOT_STORED


class Gate(Protocol):
    """The part of `PublishGate` that a streamed publish uses."""

    def enter(
        self,
        request: Request,
        exchange: BodyExchange,
        then: Callable[[Rights | None], None],
        refused: Callable[[FastsseError], None],
    ) -> None:
        """Calls `then` with the publisher's rights, or `refused`; now or later."""

    def check_again(self, request: Request) -> None:
        """Raises when the publisher may not publish any more; to be followed by `enter`."""

    def delay_s(self, request: Request) -> float:
        """Seconds until the publisher's rate limit allows more."""

    def publish_more(
        self,
        events: Sequence[Event],
        request: Request,
        counted: int,
        done: Callable[[Published | FastsseError], None],
    ) -> None:
        """Publishes all events or none. Raises as `PublishGate.publish`. The publisher's rate limit
        has counted `counted` of them already."""

    def log_cut(self, client: str, events: int, last: str, dropped_bytes: int) -> None:
        """Logs a body that was cut."""

    def log_skipped(self, client: str, skipped: dict[str, int]) -> None:
        """Logs events that were left out."""


class StreamCounts:
    """Counts streamed publishes of a worker.

    Attributes:
        open: number of open streamed publishes.
        cut: number of those whose connection was lost.
    """

    __slots__ = ("cut", "open")

    def __init__(self) -> None:
        self.open = 0
        self.cut = 0


class Ending:
    """The topics that end with a body: those of a relay, or those named in lines.

    Arguments:
        topics: of a relay; none for lines.
        private: the end is only for streams whose grants match.
    """

    def __init__(self, topics: str | Sequence[str], private: bool) -> None:
        named = (topics,) if isinstance(topics, str) else topics
        self.topics: Final = dict.fromkeys(named)
        self._private = private
        self._collects = not named

    def add(self, batch: Sequence[Event]) -> None:
        """Notes the topics of published lines. Raises InvalidEvent if there are too many."""
        if self._collects:
            for topics, _ in kinds_of(batch):
                self.topics.update(dict.fromkeys(topics))
            if len(self.topics) > EVENT_TOPICS_MAX:
                detail = f"is possible for at most {EVENT_TOPICS_MAX} topics"
                raise InvalidEvent("end_on_close", detail)

    def event(self) -> Event:
        """The end of the topics."""
        return Event.end(tuple(self.topics), self._private)


class PublishStream:
    """One streamed publish; the `BodyReader` of its request. Loop thread only.

    Arguments:
        gate: the way to the hub.
        counts: of the worker.
        request: the admitted request.
        exchange: takes the answer.
        source: converts the body to events.
        ending: the topics that end with the body, also after a lost connection; None: none.
    """

    def __init__(
        self,
        gate: Gate,
        counts: StreamCounts,
        request: Request,
        exchange: BodyExchange,
        source: BodyEvents,
        ending: Ending | None = None,
    ) -> None:
        self._ending = ending
        self._gate: Final = gate
        self._counts: Final = counts
        self._request: Final = request
        self._exchange: Final = exchange
        self._source: Final = source
        self._client: Final = exchange.peer()
        self._loop: Final = asyncio.get_running_loop()
        self._answers_lines = request.chunked and _NDJSON in request.headers.get(b"accept", b"")
        self._is_started = False
        self._counted = 1  # By the admission of the request.
        self._checked_s = self._loop.time()
        self._waiting: list[Event] = []
        # One event at a time, after a batch was refused for one of its events.
        self._single = False
        self._is_busy = True  # Until the rights are known.
        self._is_pumping = False
        self._is_held = False
        self._is_complete = False
        self._is_cut = False
        self._is_over = False
        self._error: FastsseError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._count = 0
        self._first = self._last = b""
        self._warnings: dict[str, None] = {}
        counts.open += 1
        self._is_pumping = True
        gate.enter(request, exchange, self._entered, self._not_entered)
        self._is_pumping = False

    # ── Called by the connection (router.BodyReader) ─────────────────────────────────────────

    @property
    def held_bytes(self) -> int:
        """Bytes of events that are not published yet."""
        return self._source.held_bytes + sum(len(event.data) for event in self._waiting)

    def feed(self, piece: bytes | bytearray) -> bool:
        """Takes a piece."""
        if not self._is_over:
            if self._error is None:
                self._waiting += self._source.read(bytes(piece))
            self._pump()
            self._is_held = self._is_busy
        return not self._is_busy

    def end(self) -> None:
        """The body is complete."""
        self._is_complete = True
        if not self._is_over and self._error is None and self._source.error is None:
            self._waiting += self._source.end()
        self._pump()

    def cut(self) -> None:
        """The connection was lost: publishes the complete events."""
        self._is_cut = True
        self._pump()

    def leave(self, error: FastsseError) -> None:
        """The rest is not read: publishes the complete events, and answers with the error."""
        if self._error is None:
            self._error = error
            self._pump()

    # ── Publishing ───────────────────────────────────────────────────────────────────────────

    def _entered(self, rights: Rights | None) -> None:
        self._checked_s = self._loop.time()
        self._is_busy = False
        self._pump()

    def _not_entered(self, error: FastsseError) -> None:
        self._refused(error)
        self._pump()

    def _pump(self) -> None:
        """Publishes waiting events unless a batch is being published; then reads on or ends."""
        if self._is_pumping:
            return
        self._is_pumping = True
        while self._waiting and not self._is_busy and not self._is_over:
            self._publish_next()
        self._is_pumping = False
        if self._is_busy or self._is_over:
            return
        error = self._error or self._source.error
        ending = self._ending
        if error is None and ending is not None and (self._is_complete or self._is_cut):
            self._ending = None
            if ending.topics:
                self._end(ending.event())
                return
        if error is not None and not self._is_cut:
            self._fail(error)
        elif self._is_complete:
            self._answer()
        elif self._is_cut:
            self._close()
            self._counts.cut += 1
            held = self._source.held_bytes
            self._gate.log_cut(self._client, self._count, self._last.decode(), held)
        elif self._is_held:
            self._is_held = False
            self._exchange.go_on()

    def _publish_next(self) -> None:
        try:
            if self._loop.time() - self._checked_s > CHECK_S and not self._check_again():
                return
            delay_s = 0.0 if self._counted else self._gate.delay_s(self._request)
            if delay_s > 0:
                self._is_busy = True
                self._timer = self._loop.call_later(delay_s, self._after_delay)
                return
            batch = self._waiting[:1] if self._single else self._waiting
            self._waiting = self._waiting[len(batch) :]
            self._single = self._single and bool(self._waiting)
            self._is_busy = True
            self._publish(batch)
        except FastsseError as error:
            self._refused(error)

    def _check_again(self) -> bool:
        """Checks the token again; False while keys are fetched, or when it is refused."""
        self._gate.check_again(self._request)
        self._is_busy = True
        self._gate.enter(self._request, self._exchange, self._entered, self._not_entered)
        return not self._is_busy and self._error is None

    def _after_delay(self) -> None:
        self._timer = None
        self._is_busy = False
        self._pump()

    def _publish(self, batch: list[Event]) -> None:
        def done(outcome: Published | FastsseError) -> None:
            if isinstance(outcome, FastsseError):
                self._on_refused(batch, outcome)
            else:
                self._on_published(batch, outcome)
            self._pump()

        counted, self._counted = self._counted, 0
        try:
            self._gate.publish_more(batch, self._request, counted, done)
        except FastsseError as error:
            self._on_refused(batch, error)

    def _end(self, end: Event) -> None:
        def done(outcome: Published | FastsseError) -> None:
            self._is_busy = False
            if isinstance(outcome, FastsseError):
                self._error = outcome
            self._pump()

        self._is_busy = True
        try:
            self._gate.publish_more((end,), self._request, 1, done)
        except FastsseError as error:
            done(error)

    def _on_published(self, batch: list[Event], published: Published) -> None:
        self._is_busy = False
        self._first = self._first or published.first
        # Empty when a rule has dropped all of the batch.
        self._last = published.last or self._last
        self._count += published.count
        if self._ending is not None:
            try:
                self._ending.add(batch)
            except InvalidEvent as error:
                self._refused(error)
        if len(self._warnings) < _WARNINGS_MAX:
            for _, event_type in kinds_of(batch):
                self._warnings |= dict.fromkeys(warnings_on(event_type))
        if self._answers_lines and self._exchange.is_open:
            self._start()
            self._exchange.send(b"".join([_line({"id": one.decode()}) for one in published.ids]))

    def _on_refused(self, batch: list[Event], error: FastsseError) -> None:
        """An event of a batch was refused: publishes the events before it."""
        self._is_busy = False
        is_about_one = isinstance(error, BadRequest | Conflict) or problem_of(error).status == 403
        if len(batch) > 1 and is_about_one:
            self._waiting = batch + self._waiting
            self._single = True
        else:
            self._refused(error)

    def _refused(self, error: FastsseError) -> None:
        self._is_busy = False
        self._waiting.clear()
        self._error = error

    # ── Answering ────────────────────────────────────────────────────────────────────────────

    def _answer(self) -> None:
        self._close()
        if not self._answers_lines:
            answer = json_response(_line(self._result()))
            head = answer.head + warning_lines(self._warnings)
            self._exchange.respond(answer._replace(head=head))
        elif self._exchange.is_open:
            self._start()
            self._exchange.finish()

    def _fail(self, error: FastsseError) -> None:
        self._close()
        plain = problem_of(error)
        members = {**plain.members, **self._result()}
        problem = Problem(
            plain.status,
            plain.detail,
            field=plain.field,
            header_lines=plain.header_lines,
            members=members,
        )
        if self._is_started:
            fields = {"status": problem.status, "detail": problem.detail, "field": problem.field}
            self._exchange.send(_line(fields | members))
            self._exchange.finish()
        else:
            self._exchange.fail(problem)

    def _start(self) -> None:
        if not self._is_started:
            self._is_started = True
            self._exchange.start(_LINES_HEAD)

    def _result(self) -> dict[str, object]:
        result: dict[str, object] = {"count": self._count}
        if self._count:
            result |= {"first": self._first.decode(), "last": self._last.decode()}
        if self._source.skipped:
            result["skipped"] = self._source.skipped
        return result

    def _close(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._counts.open -= 1
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._source.skipped:
            self._gate.log_skipped(self._client, self._source.skipped)


def _line(members: dict[str, object]) -> bytes:
    return orjson.dumps(members, option=orjson.OPT_APPEND_NEWLINE)
