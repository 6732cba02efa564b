"""How options are declared: a group for each part of the server, a default and bounds for each."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from fastsse.units import parse_duration_s, parse_size_bytes

__all__ = ["OptionGroup", "duration", "option", "size"]


class OptionGroup(BaseModel):
    """Options of one part of the server. Frozen; a component is given only its own group."""

    title: ClassVar[str]

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def option(default: object, help: str, **bounds: Any) -> Any:
    """An option's default and help; `bounds` are pydantic's (`ge`, `le`)."""
    return Field(default, description=help, **bounds)


def duration(default: str, help: str, *, least: str, most: str) -> Any:
    """A duration, its default and bounds written as a user would."""
    return option(default, help, ge=parse_duration_s(least), le=parse_duration_s(most))


def size(default: str, help: str, *, least: str, most: str) -> Any:
    """A size, its default and bounds written as a user would."""
    return option(default, help, ge=parse_size_bytes(least), le=parse_size_bytes(most))
