"""`/admin/tokens`: an operator makes a token with the server's key, if the operator of the machine
allows it, and asks what the server thinks of one."""

from functools import partial
from typing import Any, Final

import orjson

from fastsse.api.admin.access import ConsoleAccess
from fastsse.api.admin.parameters import read_duration
from fastsse.api.rate_limits import RequestLimits
from fastsse.auth.guard import Guard, Pending
from fastsse.auth.judged import Judged, read_claims
from fastsse.auth.rights import Rights
from fastsse.auth.token import TOKEN_BYTES_MAX
from fastsse.auth.verifier import Side
from fastsse.config import Config
from fastsse.errors import BadRequest, FastsseError
from fastsse.http.problems import Problem, problem_of
from fastsse.http.request import Request
from fastsse.http.responses import json_response
from fastsse.http.router import Exchange, Paths, Route, admit_length
from fastsse.log import get_logger
from fastsse.minting import SIDES, CannotSign, Wanted, claims_of, sign, signing_of

__all__ = ["TokenAdmin"]

audit = get_logger("audit")
_SELECTORS_MAX: Final = 100
_TEXT_MAX: Final = 1024
_NAMES: Final = ("publish", "subscribe", "subject", "lifetime")
_OFF: Final = "Tokens are not made here; console_minting allows it, up to a lifetime."
_NO_KEYS: Final = "This server takes no tokens: there is no jwt_key."


class TokenAdmin:
    """The routes of tokens at one worker. Loop thread only.

    Arguments:
        config: the options.
        guard: verifies tokens; None: there are no JWT keys.
        limits: counts requests of clients.
        access: decides who is an operator.
    """

    def __init__(
        self, config: Config, guard: Guard | None, limits: RequestLimits, access: ConsoleAccess
    ) -> None:
        self._config = config
        self._guard = guard
        self._limits = limits
        self._access = access

    def paths(self) -> Paths:
        """The routes."""
        return {
            b"/admin/tokens": {b"POST": Route(self._mint_for)},
            b"/admin/tokens/explain": {b"POST": Route(self._explain_for, _admit_token)},
        }

    def _mint_for(self, request: Request, exchange: Exchange) -> None:
        self._limits.take_request(request, None)
        self._access.allow(request, exchange, "act", partial(self._mint, request, exchange))

    def _mint(self, request: Request, exchange: Exchange, operator: str) -> None:
        most_s = self._config.console_minting
        if not most_s:
            raise Problem(403, _OFF, field="console_minting")
        wanted = _wanted(request, most_s)
        try:
            claims = claims_of(self._config, wanted)
            token = sign(signing_of(self._config, wanted), claims)
        except CannotSign as error:
            raise Problem(409, f"{error}", field="jwt_key") from None
        audit.warning(
            "An operator made a token.",
            operator=operator,
            client=exchange.peer(),
            of_subject=wanted.subject,
            token_id=claims["jti"],
            publish=list(wanted.publish),
            subscribe=list(wanted.subscribe),
            lifetime_s=wanted.lifetime_s,
        )
        exchange.respond(_json({"token": token, "claims": claims}))

    def _explain_for(self, request: Request, exchange: Exchange) -> None:
        self._limits.take_request(request, None)
        self._access.allow(
            request, exchange, "read", lambda operator: self._explain(request, exchange)
        )

    def _explain(self, request: Request, exchange: Exchange) -> None:
        if self._guard is None:
            raise Problem(409, _NO_KEYS, field="jwt_key")
        raw = bytes(request.body).strip().removeprefix(b"Bearer ").strip()
        _Judging(self._guard, raw, exchange).go_on()


class _Judging:
    """A token under judgement: side by side, because keys or revocations may have to be fetched."""

    def __init__(self, guard: Guard, raw: bytes, exchange: Exchange) -> None:
        self._raw = raw
        self._exchange = exchange
        self._verdicts: dict[Side, Rights | str] = {}
        headers = {b"authorization": b"Bearer " + raw}
        self._asked: dict[Side, Any] = {
            "publish": partial(guard.publisher, headers, ()),
            "subscribe": partial(guard.subscriber, headers, ()),
            "console": partial(guard.operator, headers[b"authorization"]),
        }

    def go_on(self) -> None:
        """Judges the sides that are left, and answers."""
        for side, ask in self._asked.items():
            if side in self._verdicts:
                continue
            try:
                self._verdicts[side] = ask()
            except Pending as pending:
                pending.wait(partial(self._answered, side))
                return
            except FastsseError as error:
                self._verdicts[side] = _why(error)
        self._exchange.respond(_json(Judged(*read_claims(self._raw), self._verdicts).members()))

    def _answered(self, side: Side, outcome: Rights | FastsseError | None) -> None:
        assert outcome is not None
        self._verdicts[side] = _why(outcome) if isinstance(outcome, FastsseError) else outcome
        self.go_on()


def _why(error: FastsseError) -> str:
    return problem_of(error).detail


def _wanted(request: Request, most_s: float) -> Wanted:
    """What the query asks for. Raises BadRequest."""
    found: dict[str, list[str]] = {name: [] for name in _NAMES}
    for name, value in request.target.pairs:
        if name not in found:
            raise BadRequest(name, f"is unknown; allowed are {', '.join(_NAMES)}")
        if not 0 < len(value) <= _TEXT_MAX:
            raise BadRequest(name, f"must have 1 to {_TEXT_MAX} characters")
        if len(found[name]) >= (_SELECTORS_MAX if name in SIDES else 1):
            raise BadRequest(name, "is given too often")
        found[name].append(value)
    if not found["publish"] and not found["subscribe"]:
        raise BadRequest("subscribe", "or publish must say what the token grants")
    first = {name: values[0] for name, values in found.items() if values}
    lifetime_s = read_duration(first, "lifetime", most_s)
    return Wanted(
        found["publish"],
        found["subscribe"],
        first.get("subject"),
        most_s if lifetime_s is None else lifetime_s,
    )


def _admit_token(request: Request) -> None:
    """Accepts a token as the body. Raises Problem (411, 413)."""
    admit_length(request, TOKEN_BYTES_MAX, f"A token may have at most {TOKEN_BYTES_MAX} bytes.")


def _json(value: object) -> Any:
    return json_response(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE))
