"""The parts of a parsed expression."""

from dataclasses import dataclass
from typing import Literal as Choice

__all__ = ["Both", "Call", "Compared", "Constant", "Has", "In", "Node", "Not", "Path", "Value"]

#: What a text, number, `true`, `false` or `null` says.
Constant = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Value:
    """A constant."""

    value: Constant


@dataclass(frozen=True, slots=True)
class Path:
    """A field of the event: `data`, `meta`, `event` or `topic`, and the names and indexes behind
    it."""

    parts: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Has:
    """Whether a field is there."""

    path: Path


@dataclass(frozen=True, slots=True)
class Not:
    """`!`."""

    node: "Node"


@dataclass(frozen=True, slots=True)
class Both:
    """`&&` or `||`."""

    sign: Choice["&&", "||"]
    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison of two values."""

    sign: Choice["==", "!=", "<", "<=", ">", ">="]
    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True)
class In:
    """`in`: a list of constants, or a field that is a list, a map, or `topic`."""

    left: "Node"
    right: "Path | tuple[Constant, ...]"


@dataclass(frozen=True, slots=True)
class Call:
    """A test of two texts: `startsWith`, `endsWith` or `contains`."""

    name: str
    left: "Node"
    right: "Node"


Node = Value | Path | Has | Not | Both | Compared | In | Call
