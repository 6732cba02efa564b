"""Converts the claims of a verified token to rights (RFC 7519 §4; `mercure` of the Mercure
protocol)."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import orjson

from fastsse.auth.rights import Rights
from fastsse.errors import Unauthorised

__all__ = ["CONSOLE", "CONSOLE_ROLES", "TIME_S_MAX", "Expected", "read_rights"]

#: The side of operators.
CONSOLE: Final = "console"
CONSOLE_ROLES: Final = ("read", "act")
_NAMESPACED: Final = "https://mercure.rocks/"
_SELECTORS_MAX: Final = 1_000
_TEXT_MAX: Final = 1024
# The last second of the year 9999: a larger number is not a time.
TIME_S_MAX: Final = 253_402_300_799
# Clocks differ, and a token is often used in the second in which it was issued.
_ISSUED_AHEAD_S: Final = 60


class Expected(NamedTuple):
    """The required audience and issuer of tokens (empty: any), and the leeway for times."""

    audience: frozenset[str] = frozenset()
    issuer: frozenset[str] = frozenset()
    leeway_s: float = 0.0


def read_rights(claims: Mapping[str, Any], expected: Expected, side: str, now_s: float) -> Rights:
    """The rights that a verified token gives on one side: `publish`, `subscribe` or `console`.

    Raises Unauthorised for a token that is expired, not valid yet, for another audience or issuer,
    malformed, or without `mercure.publish` on the side `publish`.
    """
    issued_s, expires_s = _check_times(claims, expected.leeway_s, now_s)
    if "aud" in claims or expected.audience or expected.issuer:
        _check_party(claims, expected)
    grants = claims.get(_NAMESPACED, claims.get("mercure"))
    if not isinstance(grants, dict | None):
        raise Unauthorised("The token's mercure claim is not an object.")
    grants = grants or {}
    publish = _selectors(grants, "publish")
    subscribe = _selectors(grants, "subscribe")
    if side == "publish" and publish is None:
        raise Unauthorised("The token has no mercure.publish.")
    return Rights(
        publish or (),
        subscribe or (),
        _payload(grants) if "payload" in grants else None,
        _text(claims, "sub") if "sub" in claims else None,
        _text(claims, "jti") if "jti" in claims else None,
        issued_s,
        expires_s,
        _console(claims) if side == CONSOLE else "",
    )


def _console(claims: Mapping[str, Any]) -> str:
    """The role of an operator: `read`, `act`, or nothing. A grant of topics is none."""
    ours = claims.get("fastsse")
    if not isinstance(ours, dict | None):
        raise Unauthorised("The token's fastsse claim is not an object.")
    role = (ours or {}).get("console", "")
    if role not in ("", *CONSOLE_ROLES):
        raise Unauthorised("The token's fastsse.console must be read or act.")
    return str(role)


def _check_times(
    claims: Mapping[str, Any], leeway_s: float, now_s: float
) -> tuple[float | None, float | None]:
    """When the token was issued, at most the present time, and when its rights end."""
    expires_s = _time(claims, "exp")
    # Claims that most tokens don't have are looked up first, because this runs for each new token.
    begins_s = _time(claims, "nbf") if "nbf" in claims else None
    issued_s = _time(claims, "iat")
    if expires_s is not None:
        expires_s += leeway_s
        if expires_s <= now_s:
            raise Unauthorised("The token has expired (exp).")
    if begins_s is not None and begins_s - leeway_s > now_s:
        raise Unauthorised("The token is not valid yet (nbf).")
    if issued_s is not None:
        if issued_s - leeway_s > now_s + _ISSUED_AHEAD_S:
            raise Unauthorised("The token was issued in the future (iat).")
        # Otherwise an issuer clock that is ahead would make the token newer than a revocation.
        issued_s = min(issued_s, now_s)
    return issued_s, expires_s


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unauthorised(f"The token's {name} is not a number.")
    if not 0 <= value <= TIME_S_MAX:
        raise Unauthorised(f"The token's {name} is not a time.")
    return value


def _check_party(claims: Mapping[str, Any], expected: Expected) -> None:
    audience = claims.get("aud")
    if isinstance(audience, str):
        audience = [audience]
    if audience is not None and not (
        isinstance(audience, list) and all(isinstance(one, str) for one in audience)
    ):
        raise Unauthorised("The token's aud must be a string or a list of strings.")
    if expected.audience and not expected.audience.intersection(audience or ()):
        raise Unauthorised("The token is for another audience (aud).")
    issuer = claims.get("iss")
    if expected.issuer and not (isinstance(issuer, str) and issuer in expected.issuer):
        raise Unauthorised("The token is from another issuer (iss).")


def _selectors(grants: Mapping[str, Any], name: str) -> list[str] | None:
    value = grants.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise Unauthorised(f"The token's mercure.{name} is not a list of strings.")
    if len(value) > _SELECTORS_MAX:
        raise Unauthorised(f"The token's mercure.{name} has more than {_SELECTORS_MAX} entries.")
    return value


def _payload(grants: Mapping[str, Any]) -> object:
    """The payload: any JSON that can be encoded again, because subscription events contain it."""
    payload = grants.get("payload")
    if payload is not None:
        try:
            orjson.dumps(payload)
        except TypeError:
            detail = (
                "The token's mercure.payload is nested too deeply or has invalid text or numbers."
            )
            raise Unauthorised(detail) from None
    return payload


def _text(claims: Mapping[str, Any], name: str) -> str | None:
    value = claims.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > _TEXT_MAX:
        raise Unauthorised(f"The token's {name} is not a string of at most {_TEXT_MAX} characters.")
    return value
