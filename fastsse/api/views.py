"""Query parameters for which events a stream is sent, and in which form."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from fastsse.api.parameters import VIEW_NAMES, switch
from fastsse.errors import InvalidSubscription
from fastsse.events import EVENT_TYPE_BYTES_MAX, RESERVED_EVENT_TYPE_PREFIX
from fastsse.expressions import InvalidExpression, compile_expression
from fastsse.subscriptions import View

__all__ = ["VIEW_NAMES", "ViewReader"]

#: Types that one parameter may name.
TYPES_MAX: Final = 64
UNTIL_DATA_BYTES_MAX: Final = 1024
RATE_MIN: Final = 0.1
RATE_MAX: Final = 100.0
_RATE: Final = re.compile(r"[0-9]{1,3}(\.[0-9]{1,6})?", re.ASCII)
_ENVELOPES: Final = {"json": True, "none": False}
_ENDS_A_LINE: Final = re.compile(r"[\r\n\0]")


class ViewReader:
    """Reads the parameters of views.

    Arguments:
        have_envelopes: whether streams with some selectors get envelopes unless their request
            says otherwise.
    """

    def __init__(
        self, have_envelopes: Callable[[Sequence[str]], bool] = lambda selectors: False
    ) -> None:
        self._have_envelopes: Final = have_envelopes

    def read(self, chosen: Mapping[str, str], selectors: Sequence[str]) -> View | None:
        """The view that the parameters in VIEW_NAMES ask for; None when it is every event as it is.

        Raises InvalidSubscription.
        """
        if "envelope" in chosen:
            envelope = _envelope(chosen["envelope"])
        else:
            envelope = self._have_envelopes(selectors)
        view = View(
            _types("event", chosen.get("event")),
            envelope,
            _types("until", chosen.get("until")),
            _until_data(chosen.get("until_data")),
            _filter(chosen.get("filter")),
            _interval_ms(chosen.get("max_rate")),
            notices="deleted" in chosen and switch("deleted", chosen["deleted"]),
        )
        return None if view == _PLAIN else view


_PLAIN: Final = View()


def _envelope(text: str) -> bool:
    try:
        return _ENVELOPES[text]
    except KeyError:
        raise InvalidSubscription("envelope", "must be json or none") from None


def _types(field: str, text: str | None) -> tuple[bytes, ...]:
    """Event types, separated by commas."""
    if text is None:
        return ()
    types = sorted({_type(field, part) for part in text.split(",")})
    if len(types) > TYPES_MAX:
        raise InvalidSubscription(field, f"must name at most {TYPES_MAX} types")
    return tuple(types)


def _type(field: str, text: str) -> bytes:
    type_ = text.strip().encode("utf-8", "surrogatepass")
    if not 0 < len(type_) <= EVENT_TYPE_BYTES_MAX:
        bounds = f"types of 1 to {EVENT_TYPE_BYTES_MAX} bytes, separated by commas"
        raise InvalidSubscription(field, f"must be {bounds}")
    if _ENDS_A_LINE.search(text):
        raise InvalidSubscription(field, "must not hold CR, LF or NUL")
    if type_.startswith(RESERVED_EVENT_TYPE_PREFIX):
        raise InvalidSubscription(field, "can't name types that begin with fastsse.")
    return type_


def _filter(text: str | None) -> str | None:
    """A valid filter; the problem names the character that is wrong."""
    if text is None:
        return None
    text = text.strip()
    try:
        compile_expression(text)
    except InvalidExpression as error:
        raise InvalidSubscription("filter", f"is not valid. {error}") from None
    return text


def _interval_ms(text: str | None) -> int:
    """Converts events a second to the time between two events of a topic and type."""
    if text is None:
        return 0
    rate = float(text) if _RATE.fullmatch(text) else 0.0
    if not RATE_MIN <= rate <= RATE_MAX:
        bounds = f"{RATE_MIN:g} to {RATE_MAX:g}"
        raise InvalidSubscription("max_rate", f"must be a number of events a second from {bounds}")
    return round(1000 / rate)


def _until_data(text: str | None) -> bytes | None:
    if text is None:
        return None
    # Line ends as clients receive them.
    data = re.sub("\r\n?", "\n", text).encode("utf-8", "surrogatepass")
    if len(data) > UNTIL_DATA_BYTES_MAX:
        raise InvalidSubscription("until_data", f"must be at most {UNTIL_DATA_BYTES_MAX} bytes")
    return data
