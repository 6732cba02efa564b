"""Directives: what a publisher asks of an event in addition to sending it. Control entries.

Directives travel with the event to the place where order is made, which judges them.
"""

from typing import Any, Final, Literal, NamedTuple, TypeAlias

import orjson

__all__ = ["DIRECTIVE_FIELDS", "END", "Control", "Directives", "directives_of", "read_control"]

#: Those fields of a publish that are directives.
DIRECTIVE_FIELDS: Final = frozenset({"end"})

ControlKind: TypeAlias = Literal["end", "delete", "purge"]
KINDS: Final[frozenset[ControlKind]] = frozenset({"end", "delete", "purge"})


class Directives(NamedTuple):
    """What is asked of one event. All None and False is none at all.

    Attributes:
        control: it is no event but a control entry, and this is what it says.
        ends: its topics end behind it.
    """

    control: bytes | None = None
    ends: bool = False


def directives_of(*, ends: bool = False) -> Directives | None:
    """What a publisher's fields ask; None for nothing."""
    if not ends:
        return None
    return Directives(ends=ends)


class Control(NamedTuple):
    """What a control entry says.

    Attributes:
        kind: `end`: its topics have ended. `delete`: the event at a position is blank.
            `purge`: all events of its topics up to a position are blank.
        through: that position, 0 for `end`.
    """

    kind: ControlKind
    through: int = 0

    def encode(self) -> bytes:
        """As an entry carries it."""
        members: dict[str, Any] = {"op": self.kind}
        if self.through:
            members["at"] = f"{self.through >> 64}-{self.through & (1 << 64) - 1}"
        return orjson.dumps(members)


END: Final = Control("end").encode()


def read_control(text: bytes) -> Control | None:
    """What a control entry says; None for an operation of a later version. Raises ValueError when
    it is not one."""
    members = orjson.loads(text)
    if not isinstance(members, dict) or not isinstance(kind := members.get("op"), str):
        raise ValueError("not a control entry")
    if kind not in KINDS:
        return None
    ms, _, n = str(members.get("at", "0-0")).partition("-")
    return Control(kind, int(ms) << 64 | int(n))
