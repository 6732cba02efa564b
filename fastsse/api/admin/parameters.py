"""The parameters of `/admin`. Unknown names are refused, because a mistyped filter would match
everything."""

import ipaddress
import re
from collections.abc import Collection, Mapping
from typing import Final

from fastsse.errors import BadRequest
from fastsse.http.request import Request
from fastsse.units import format_duration, parse_duration_s

__all__ = [
    "LIMIT_MAX",
    "connection_filter",
    "number",
    "parameters",
    "read_cursor",
    "read_duration",
    "stream_id",
]

LIMIT_MAX: Final = 500
LIMIT_UNASKED: Final = 100
_TEXT_MAX: Final = 1024
_NUMBER: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
_CURSOR: Final = re.compile(r"([0-9a-f]{0,32})\.([0-9]{1,9})\.([0-9]{1,9})", re.ASCII)
_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
#: Parameters that select connections.
FILTERS: Final = ("id", "topic", "subject", "address", "agent", "state")


def parameters(request: Request, allowed: Collection[str]) -> Mapping[str, str]:
    """The query as a mapping. Raises BadRequest for a name that is not allowed or repeated, and for
    an empty value or one of more than 1,024 characters."""
    found: dict[str, str] = {}
    for name, value in request.target.pairs:
        if name not in allowed:
            raise BadRequest(name, f"is unknown; allowed are {', '.join(allowed)}")
        if name in found:
            raise BadRequest(name, "must be given once")
        if not 0 < len(value) <= _TEXT_MAX:
            raise BadRequest(name, f"must have 1 to {_TEXT_MAX} characters")
        found[name] = value
    return found


def number(given: Mapping[str, str], name: str, least: int, most: int, unasked: int) -> int:
    """A whole number within bounds. Raises BadRequest."""
    text = given.get(name, str(unasked))
    if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
        raise BadRequest(name, f"must be a number from {least} to {most}")
    return int(text)


def read_duration(given: Mapping[str, str], name: str, most_s: float) -> float | None:
    """A duration such as `10m`, in seconds; None when it is not given. Raises BadRequest."""
    if name not in given:
        return None
    try:
        seconds = parse_duration_s(given[name])
    except ValueError as error:
        raise BadRequest(name, f"{error}") from None
    if not 0 < seconds <= most_s:
        raise BadRequest(name, f"must be above 0 and at most {format_duration(round(most_s))}")
    return seconds


def stream_id(text: str) -> str:
    """The id of a connection as 32 digits, from any form in which it is shown. Raises
    BadRequest."""
    digits = text.lower().removeprefix("urn:uuid:").replace("-", "")
    if not _ID.fullmatch(digits):
        raise BadRequest("id", "must be the id of a connection: 32 hexadecimal digits")
    return digits


def connection_filter(given: Mapping[str, str]) -> dict[str, object]:
    """The members of a question that select connections. Raises BadRequest."""
    wanted: dict[str, object] = {name: given[name] for name in FILTERS if name in given}
    if "id" in wanted:
        wanted["id"] = stream_id(given["id"])
    if "address" in wanted:
        try:
            wanted["address"] = str(ipaddress.ip_network(given["address"].strip("[]")))
        except ValueError as error:
            raise BadRequest("address", f"must be an address or a network ({error})") from None
    if given.get("state", "blocked") != "blocked":
        raise BadRequest("state", "must be blocked")
    return wanted


def read_cursor(given: Mapping[str, str]) -> list[object] | None:
    """Where a page begins: a node, a worker and a slot. Raises BadRequest."""
    if "after" not in given:
        return None
    found = _CURSOR.fullmatch(given["after"])
    if found is None:
        raise BadRequest("after", "must be the value of next in the page before")
    return [found[1], int(found[2]), int(found[3])]
