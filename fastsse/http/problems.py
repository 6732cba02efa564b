"""Converts exceptions to answers: a status and a problem body (RFC 9457). No other module does."""

from collections.abc import Mapping
from http import HTTPStatus

import orjson

from fastsse.errors import (
    BadRequest,
    Conflict,
    FastsseError,
    Forbidden,
    InterceptorFailed,
    NotKept,
    PreconditionFailed,
    RateExceeded,
    Unauthorised,
    Unavailable,
)
from fastsse.http.responses import NOT_STORED, Response

CHALLENGE = b'WWW-Authenticate: Bearer realm="fastsse"\r\n'
PROBLEM_JSON = b"Content-Type: application/problem+json\r\n"


class Problem(FastsseError):
    """A request that is answered with an error.

    `status` is the HTTP status, `detail` a sentence for people, `field` the header, query parameter
    or member that is wrong, `header_lines` complete lines for the response head, `members` more
    members for the body.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        field: str | None = None,
        header_lines: bytes = b"",
        members: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.field = field
        self.header_lines = header_lines
        self.members = members or {}


def problem_of(error: FastsseError) -> Problem:
    """The problem that answers an error of this package."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, BadRequest):
        return Problem(error.status, f"{error}.", field=error.field, members=error.members)
    if isinstance(error, Conflict):
        members: dict[str, object] = {"reason": error.reason, "topic": error.topic}
        if isinstance(error, PreconditionFailed):
            members["current"] = error.current or None
        return Problem(error.status, error.detail, members=members)
    if isinstance(error, Unauthorised):
        return Problem(401, error.detail, field="Authorization", header_lines=CHALLENGE)
    if isinstance(error, Forbidden):
        return Problem(403, error.detail)
    if isinstance(error, Unavailable):
        if isinstance(error, RateExceeded):
            detail = f"The topic takes {error.rate} events a second (max_publish_rate)."
            after = _retry_after(error)
            return Problem(
                429, detail, field="topic", header_lines=after, members={"topic": error.topic}
            )
        return retry_problem(error, "The event was not published. Retry it later.")
    if isinstance(error, NotKept):
        return Problem(404, error.detail, field=error.field)
    if isinstance(error, InterceptorFailed):
        return Problem(500, str(error))
    return Problem(500, "The server failed to handle this request.")


def retry_problem(error: Unavailable, detail: str) -> Problem:
    """A 503 with `Retry-After` and the error's reason. `detail` says what was not done."""
    return Problem(503, detail, header_lines=_retry_after(error), members={"reason": error.reason})


def _retry_after(error: Unavailable) -> bytes:
    return b"Retry-After: %d\r\n" % max(1, round(error.retry_after_s))


def problem_response(problem: Problem) -> Response:
    """The response for a problem."""
    members: dict[str, object] = {
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
    }
    if problem.field is not None:
        members["field"] = problem.field
    members.update(problem.members)
    return Response.of(
        problem.status,
        orjson.dumps(members, option=orjson.OPT_APPEND_NEWLINE),
        PROBLEM_JSON + NOT_STORED + problem.header_lines,
    )
