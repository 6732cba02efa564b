"""The client's token, as far as it can be read without a key."""

import base64
import time
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from fastsse.checks import NOTE, OK, WRONG, Check
from fastsse.doctor.why.question import Question
from fastsse.units import format_duration

__all__ = ["claims_of", "rights"]


def claims_of(token: str | None) -> Mapping[str, Any] | None:
    """The claims of a token; None if it is no JWT."""
    parts = (token or "").split(".")
    if len(parts) != 3:
        return None
    try:
        text = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        claims = orjson.loads(text)
    except ValueError:
        return None
    return claims if isinstance(claims, dict) else None


def rights(question: Question) -> Iterator[Check]:
    """What the token gives: nothing is sent."""
    if question.token is None:
        yield Check(
            "token",
            NOTE,
            "No token is given: private events are not sent.",
            f"fastsse token mint --subscribe {question.topic}",
        )
        return
    claims = claims_of(question.token)
    if claims is None:
        yield Check("token", NOTE, "The token is no JWT; its rights can't be read here.")
        return
    expires = claims.get("exp")
    if isinstance(expires, int | float):
        left_s = expires - time.time()
        if left_s <= 0:
            yield Check(
                "token",
                WRONG,
                f"The token expired {format_duration(round(-left_s))} ago.",
                "Issue a new one: fastsse token mint, or POST /renew while the stream is open.",
            )
            return
        left = format_duration(max(1, round(left_s)))
        yield Check("token", OK, f"The token is valid for {left}.")
    else:
        yield Check("token", OK, "The token has no end.")
    grants = claims.get("https://mercure.rocks/", claims.get("mercure")) or {}
    granted = grants.get("subscribe") or [] if isinstance(grants, dict) else []
    if any(question.covers(str(one), question.topic) for one in granted):
        yield Check("rights", OK, f"The token grants private events of {question.topic}.")
    else:
        has = ", ".join(granted) or "nothing"
        yield Check(
            "rights",
            NOTE,
            f"The token grants private events of {has}, not of {question.topic}. Public events "
            "come all the same.",
            f"fastsse token mint --subscribe {question.topic}",
        )
