"""Evaluates expressions for callers in Python."""

from collections.abc import Sequence

from fastsse._core import Filter
from fastsse.events import DATA_TEXT

__all__ = ["matches"]


def matches(
    expression: Filter,
    *,
    topics: Sequence[str] = (),
    data: bytes = b"",
    event: bytes | None = None,
    meta: bytes | None = None,
    data_kind: int = DATA_TEXT,
) -> bool | None:
    """Whether an event matches; None where the evaluation is an error, which is no match.

    Arguments:
        expression: of `compile_expression`.
        topics: the event's topics.
        data: UTF-8; line ends are LF.
        event: the type; None is the default one, `message`.
        meta: a JSON object.
        data_kind: DATA_TEXT, DATA_JSON or DATA_BYTES, as of `Event`.

    O(bytes of what the expression reads). Any thread.
    """
    return expression.test(tuple(topics), data, event, meta, data_kind)
