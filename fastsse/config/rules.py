"""`[[topics]]`: rules that set limits, a lag policy or event types for some topics."""

import fnmatch
import re
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr

from fastsse.config.kinds import GLOB, PATTERN, Bytes, Choice, Count, Seconds

LagPolicy = Annotated[Literal["disconnect", "skip", "latest"], Choice]
EnvelopeKind = Annotated[Literal["none", "json"], Choice]
EventsKept = Annotated[Count, Field(ge=0, le=100_000_000)]
AgeKept = Annotated[Seconds, Field(ge=0.01, le=3650 * 24 * 3600)]
BytesKept = Annotated[Bytes, Field(ge=0, le=16 * 2**40)]
PublishRate = Annotated[Count, Field(ge=1, le=1_000_000)]
# The type that browsers use for an event without one.
DEFAULT_EVENT_TYPE = "message"


class TopicLimits(NamedTuple):
    """The limits of one topic. `lag_policy` None means that of the server; `event_types` and
    `max_publish_rate` None, any."""

    events: int
    age_s: float
    bytes: int
    lag_policy: LagPolicy | None
    event_types: re.Pattern[str] | None
    max_publish_rate: int | None = None

    def allows_event_type(self, event: str | None) -> bool:
        """Whether events of this type may be published; none counts as `message`."""
        pattern = self.event_types
        return pattern is None or pattern.fullmatch(event or DEFAULT_EVENT_TYPE) is not None


def _check_pattern(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from None
    return text


class TopicRule(BaseModel):
    """One rule: a glob and the values for the topics that match it.

    In `match`, `*` is any run of characters (also `/`), `?` any one, `[ab]` one of several.
    `event_types` is a regular expression that a whole event type must match. `max_publish_rate` is
    in events a second; publishers above it are answered with 429.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    match: Annotated[str, Field(min_length=1, max_length=1024), GLOB]
    history_events: EventsKept | None = None
    history_age: AgeKept | None = None
    history_bytes: BytesKept | None = None
    lag_policy: LagPolicy | None = None
    event_types: Annotated[str, AfterValidator(_check_pattern), PATTERN] | None = None
    envelope: EnvelopeKind | None = None
    max_publish_rate: PublishRate | None = None

    _glob: re.Pattern[str] = PrivateAttr()
    _event_types: re.Pattern[str] | None = PrivateAttr()

    def model_post_init(self, context: object, /) -> None:
        """Compile both patterns once."""
        self._glob = re.compile(fnmatch.translate(self.match))
        self._event_types = re.compile(self.event_types) if self.event_types is not None else None

    def matches(self, topic: str) -> bool:
        """Whether `topic` matches this rule."""
        return self._glob.match(topic) is not None

    @property
    def event_types_pattern(self) -> re.Pattern[str] | None:
        """`event_types`, compiled."""
        return self._event_types
