"""Delayed publishes: `deliver_at` and `delay` of `POST /events`; `/schedule` lists and cancels."""

import secrets
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Final, Protocol

import orjson

from fastsse.api.access import CREDENTIAL_NAMES
from fastsse.auth.rights import Rights
from fastsse.control.schedule import (
    FIRST,
    Schedule,
    ScheduleBounds,
    ScheduledEvent,
    SchedulePage,
    not_scheduled,
)
from fastsse.directives import Directives, delivery_ms
from fastsse.errors import BadRequest, FastsseError, InvalidEvent, Unavailable
from fastsse.events import Event
from fastsse.http.problems import Problem, problem_of
from fastsse.http.request import Request
from fastsse.http.responses import JSON, Response, json_response
from fastsse.http.router import Exchange, Paths, Route
from fastsse.hub import Hub

__all__ = ["DelayedPublish", "ScheduleGate", "schedule_bounds", "schedule_routes"]

_ID_CHARS: Final = 32
_HEX: Final = frozenset("0123456789abcdef")
_FULL_RETRY_S: Final = 60


class DelayedPublish:
    """Keeps events until they are due. Loop thread only.

    Arguments:
        hub: checks events now, as a publish does.
        schedule: keeps them.
        now_ms: unix milliseconds.
    """

    def __init__(self, hub: Hub, schedule: Schedule, now_ms: Callable[[], int]) -> None:
        self._hub = hub
        self.schedule: Final = schedule
        self._now_ms = now_ms

    def take(
        self,
        event: Event,
        exchange: Exchange,
        answered: Callable[[int], None],
        *,
        receipt: bool = False,
    ) -> None:
        """Keeps an event that was admitted, answers 202, and calls `answered` with the status.
        Raises InvalidEvent, and what a publish raises."""
        if receipt:
            raise InvalidEvent("receipt", "can't be combined with deliver_at or delay")

        def kept(outcome: tuple[str, int] | FastsseError) -> None:
            if isinstance(outcome, FastsseError):
                exchange.fail(error := _full(outcome))
                answered(problem_of(error).status)
            else:
                exchange.respond(_accepted(*outcome))
                answered(202)

        self.keep(event, kept)

    def keep(self, event: Event, done: Callable[[tuple[str, int] | FastsseError], None]) -> None:
        """Gives `done` the id and the time in unix milliseconds. Raises as `take`."""
        asked = event.directives or Directives()
        due_ms = delivery_ms(asked, self._now_ms())
        assert due_ms is not None
        rest = asked._replace(deliver_at_ms=None, delay_ms=None)
        event.direct(None if rest == Directives() else rest)
        entry_id, digest = _identity(rest)

        def answered(outcome: int | FastsseError) -> None:
            done(outcome if isinstance(outcome, FastsseError) else (entry_id, outcome))

        made = self._hub.prepare((event,))
        if made:
            self.schedule.add(entry_id, digest, due_ms, made, answered)
        else:
            done(("", due_ms))  # Interceptors dropped it.

    def cancel(self, entry_id: str, done: Callable[[FastsseError | None], None]) -> None:
        """Cancels an event that waits; gives `done` NotKept for another id."""
        if _may_be_id(entry_id):
            self.schedule.cancel(entry_id, done)
        else:
            done(not_scheduled())


class ScheduleGate(Protocol):
    """Who may list and cancel: who may publish to the topics. `publish.PublishGate` is one."""

    def admit(self, request: Request) -> None:
        """Checks the head."""

    def enter(
        self,
        request: Request,
        exchange: Exchange,
        then: Callable[[Rights | None], None],
        refused: Callable[[FastsseError], None],
    ) -> None:
        """Calls `then` with the publisher's rights, or `refused`; now or later."""

    def check_topics(self, topics: Sequence[str], rights: Rights | None) -> None:
        """Raises for topics without a right."""

    def when_authorized(
        self,
        topics: Sequence[str],
        rights: Rights | None,
        request: Request,
        then: Callable[[], None],
        refused: Callable[[FastsseError], None],
    ) -> None:
        """Calls `then` when the authorization callback allows it, else `refused`; now or later."""


def schedule_routes(gate: ScheduleGate, schedule: Schedule) -> Paths:
    """`/schedule`."""
    routes = _Routes(gate, schedule)
    return {
        b"/schedule": {
            b"GET": Route(routes.list),
            b"DELETE": Route(routes.cancel, gate.admit),
        }
    }


class _Routes:
    def __init__(self, gate: ScheduleGate, schedule: Schedule) -> None:
        self._gate = gate
        self._schedule = schedule

    def list(self, request: Request, exchange: Exchange) -> None:
        """Handles GET. Raises BadRequest, Unauthorised."""
        after = _after(request)
        self._gate.admit(request)

        def entered(rights: Rights | None) -> None:
            self._schedule.list(after, lambda page: listed(page, rights))

        def listed(page: SchedulePage | FastsseError, rights: Rights | None) -> None:
            if isinstance(page, FastsseError):
                exchange.fail(page)
            else:
                exchange.respond(_page(page, lambda one: self._is_theirs(one, rights)))

        self._gate.enter(request, exchange, entered, exchange.fail)

    def cancel(self, request: Request, exchange: Exchange) -> None:
        """Handles an admitted DELETE. Raises BadRequest."""
        entry_id = _only(request, "id")
        if entry_id is None:
            raise BadRequest("id", "is missing")
        if not _may_be_id(entry_id):
            raise not_scheduled()

        def entered(rights: Rights | None) -> None:
            self._schedule.topics_of(entry_id, lambda topics: found(topics, rights))

        def found(topics: Sequence[str] | FastsseError, rights: Rights | None) -> None:
            if isinstance(topics, FastsseError):
                exchange.fail(topics)
                return
            try:
                self._gate.check_topics(topics, rights)
            except FastsseError:
                exchange.fail(not_scheduled())  # As for an unknown id.
                return
            self._gate.when_authorized(
                topics,
                rights,
                request,
                lambda: self._schedule.cancel(entry_id, cancelled),
                lambda error: exchange.fail(not_scheduled()),
            )

        def cancelled(error: FastsseError | None) -> None:
            if error is None:
                exchange.respond(json_response(_line({"cancelled": entry_id})))
            else:
                exchange.fail(error)

        self._gate.enter(request, exchange, entered, exchange.fail)

    def _is_theirs(self, one: ScheduledEvent, rights: Rights | None) -> bool:
        try:
            self._gate.check_topics(one.topics, rights)
        except FastsseError:
            return False
        return True


def _identity(asked: Directives) -> tuple[str, bytes]:
    """The id of a delayed event, the same for a repeat with the same key, and what a repeat of a
    request must have."""
    request = asked.request
    key = asked.key if request is None else request.key
    if key is None:
        return secrets.token_hex(_ID_CHARS // 2), bytes(_ID_CHARS // 2)
    kind = b"e" if request is None else b"r"
    digest = bytes(_ID_CHARS // 2) if request is None else request.digest
    return blake2b(kind + key, digest_size=_ID_CHARS // 2).hexdigest(), digest


def _may_be_id(text: str) -> bool:
    return len(text) == _ID_CHARS and _HEX.issuperset(text)


def _only(request: Request, name: str) -> str | None:
    """The one parameter of a request. Raises BadRequest."""
    values = []
    for given, value in request.target.pairs:
        if given == name:
            values.append(value)
        elif given not in CREDENTIAL_NAMES:
            raise BadRequest(given, f"is unknown; allowed is {name}")
    if len(values) > 1:
        raise BadRequest(name, "must be given once")
    return values[0] if values else None


def _after(request: Request) -> tuple[int, str]:
    text = _only(request, "after")
    if text is None:
        return FIRST
    due, _, entry_id = text.partition("-")
    is_number = due.isascii() and due.isdigit() and len(due) <= 16
    if not is_number or not _may_be_id(entry_id):
        raise BadRequest("after", "must be the member next of a page")
    return int(due), entry_id


def _page(page: SchedulePage, is_theirs: Callable[[ScheduledEvent], bool]) -> Response:
    members: dict[str, object] = {
        "scheduled": [_members(one) for one in page.events if is_theirs(one)],
        "dead": [_members(one) for one in page.dead if is_theirs(one)],
        "next": None if page.next is None else f"{page.next[0]}-{page.next[1]}",
    }
    return json_response(_line(members))


def _members(one: ScheduledEvent) -> dict[str, object]:
    members: dict[str, object] = {
        "id": one.id,
        "topics": one.topics,
        "deliver_at": one.deliver_at_ms,
    }
    return members | ({"reason": one.reason} if one.reason else {"bytes": one.size_bytes})


def _accepted(entry_id: str, due_ms: int) -> Response:
    body = _line({"scheduled": entry_id, "deliver_at": due_ms})
    return Response.of(202, body, JSON)


def _full(error: FastsseError) -> FastsseError:
    """A full schedule is 507, not 503: a retry within seconds would not help."""
    if not isinstance(error, Unavailable) or error.reason != "schedule":
        return error
    after = b"Retry-After: %d\r\n" % error.retry_after_s
    status = 507 if error.retry_after_s >= _FULL_RETRY_S else 503
    detail = "The schedule has no room (max_scheduled, schedule_total, or one event over 900 KiB)."
    if status == 503:
        detail = "The event can't be kept now. Retry the request later."
    return Problem(status, detail, header_lines=after, members={"reason": error.reason})


def _line(members: dict[str, object]) -> bytes:
    return orjson.dumps(members, option=orjson.OPT_APPEND_NEWLINE)


def schedule_bounds(events: int, total_bytes: int) -> ScheduleBounds:
    """The bounds that the options say."""
    return ScheduleBounds(events, total_bytes)
