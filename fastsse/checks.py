"""A check: one thing that was looked at for somebody who receives nothing."""

from typing import NamedTuple

__all__ = ["NOTE", "OK", "UNKNOWN", "WRONG", "Check"]

OK = "ok"
WRONG = "wrong"
#: It may be the cause.
NOTE = "note"
UNKNOWN = "unknown"


class Check(NamedTuple):
    """One thing that was looked at.

    Attributes:
        name: a word for it.
        verdict: OK, WRONG, NOTE or UNKNOWN.
        says: what was found, a sentence.
        do: the command or option that changes it; empty when nothing is to be done.
    """

    name: str
    verdict: str
    says: str
    do: str = ""
