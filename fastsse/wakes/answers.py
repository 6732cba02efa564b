"""Acknowledgements of wakes, and the errors of the protocol."""

from collections.abc import Callable
from typing import Final

from fastsse.errors import BadRequest
from fastsse.streamoffsets import parse_offset
from fastsse.wakes.subscription import LINKS_MAX, Subscription

__all__ = ["Refusal", "read_acks"]


class Refusal(Exception):
    """An answer that is an error of the protocol."""

    def __init__(self, status: int, code: str, message: str, **members: object) -> None:
        super().__init__(message)
        self.status: Final = status
        self.members: Final = {"code": code, "message": message, **members}


def read_acks(
    one: Subscription, asked: object, tail: Callable[[str], int]
) -> list[tuple[str, int]]:
    """The streams of an answer to a wake, each with the place up to which it was processed. `tail`
    gives the end of a stream. Raises BadRequest."""
    if not isinstance(asked, list) or len(asked) > LINKS_MAX:
        raise BadRequest("acks", "must be a list")
    found = []
    for ack in asked:
        path, offset = (
            (ack.get("stream"), ack.get("offset")) if isinstance(ack, dict) else (None, None)
        )
        place = parse_offset(offset) if isinstance(offset, str) else None
        if not isinstance(path, str) or not isinstance(place, int):
            raise BadRequest("acks", "must each have a stream and an offset")
        if path not in one.links:
            continue  # It was removed meanwhile.
        if place > tail(path):
            raise BadRequest("acks", f"the offset is behind the end of {path}")
        found.append((path, place))
    return found
