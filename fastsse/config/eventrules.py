"""`[[rules]]`: what happens to events that match, and alerts about how many do."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fastsse.config.kinds import (
    Choice,
    Count,
    OptionGroup,
    Seconds,
    Selectors,
    Switch,
    ValueKind,
    option,
    read_rules,
    repeated_names,
)
from fastsse.config.sources import FilterText, SourceName, Template

__all__ = ["EVENT_RULES", "EventRule", "EventRuleOptions", "event_rule_conflicts"]

if TYPE_CHECKING:
    from fastsse.config.settings import Config

EVENT_RULES = ValueKind("JSON", "a list of at most 100 tables with name and action")
Action = Annotated[Literal["drop", "move", "copy", "alert"], Choice]
EVENT_TYPE_BYTES_MAX: Final = 256


class EventRule(BaseModel):
    """What happens to events that match."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: SourceName = option(..., "Names the rule in logs and metrics.")
    action: Action = option(
        ...,
        "What happens to an event that matches: it is dropped, goes to `publish` "
        "instead, goes there too, or is counted.",
    )
    topics: Selectors = option(
        ("*",),
        "Topics or templates such as `orders/{id}`; `*` is all. One of the event's must match.",
    )
    when: FilterText | None = option(None, "An expression that must match too.")
    publish: Template | None = option(
        None, "Template of the topic for moved and copied events, and for alerts."
    )
    count: Annotated[Count, Field(ge=1, le=100_000_000)] | None = option(
        None, "An alert is published above this many events `within` a time."
    )
    within: Annotated[Seconds, Field(ge=1, le=24 * 3600)] = option(60.0, "The time of an alert.")
    by: Template | None = option(
        None, "Template: events with the same text are counted together. Without it all are."
    )
    event: Annotated[str, Field(min_length=1, max_length=EVENT_TYPE_BYTES_MAX)] | None = option(
        None, "The type of alerts and copies."
    )
    private: Switch = option(False, "Alerts and copies are private.")
    dry_run: Switch = option(False, "Matches are counted and logged, and nothing else happens.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.publish is None) != (self.action == "drop"):
            needs = "no publish" if self.action == "drop" else "publish, a topic"
            raise ValueError(f"{self.name} needs {needs}")
        if (self.count is None) == (self.action == "alert"):
            needs = "count" if self.action == "alert" else "no count"
            raise ValueError(f"{self.name} needs {needs}")
        given = self.model_fields_set
        if self.action != "alert" and given & {"within", "by"}:
            raise ValueError(f"{self.name} has within or by, which are for alerts")
        if self.action in ("drop", "move") and given & {"event", "private"}:
            raise ValueError(f"{self.name} has event or private, which are for alerts and copies")
        return self


class EventRuleOptions(OptionGroup):
    """What happens to events that match an expression."""

    title = "Rules"

    rules: Annotated[tuple[EventRule, ...], BeforeValidator(read_rules), EVENT_RULES] = option(
        (),
        "Rules for events: name, action (drop, move, copy, alert), topics, when, publish, count, "
        "within, by, event, private, dry_run. In the file: [[rules]].",
        max_length=100,
    )


def event_rule_conflicts(config: "Config") -> Iterator[tuple[str, str]]:
    """Conflicts between rules."""
    yield from repeated_names("rules", config.rules)
