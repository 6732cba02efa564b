"""`[[topics]]`: rules that set limits, a lag policy or event types for some topics."""

import fnmatch
import re
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    model_validator,
)

from fastsse.config.kinds import (
    GLOB,
    GLOBS,
    PATTERN,
    SCHEMA,
    Bytes,
    Choice,
    Count,
    Seconds,
    Switch,
    option,
    read_list,
)
from fastsse.schemas import read_schema

LagPolicy = Annotated[Literal["disconnect", "skip", "latest"], Choice]
EnvelopeKind = Annotated[Literal["none", "json"], Choice]
EventsKept = Annotated[Count, Field(ge=0, le=100_000_000)]
TypeGlob = Annotated[str, Field(min_length=1, max_length=256)]
TypeCount = Field(min_length=1, max_length=100)
AgeKept = Annotated[Seconds, Field(ge=0.01, le=3650 * 24 * 3600)]
BytesKept = Annotated[Bytes, Field(ge=0, le=16 * 2**40)]
PublishRate = Annotated[Count, Field(ge=1, le=1_000_000)]
# The type that browsers use for an event without one.
DEFAULT_EVENT_TYPE = "message"


class TopicLimits(NamedTuple):
    """The limits of one topic. `lag_policy` None means that of the server; `event_types` and
    `types` None, any. `schema` is JSON, None for any data. `max_publish_rate` None, any. The newest
    `keep_last` events are kept however old they are, and before those of other topics."""

    events: int
    age_s: float
    bytes: int
    lag_policy: LagPolicy | None
    event_types: re.Pattern[str] | None
    max_publish_rate: int | None = None
    types: tuple[re.Pattern[str], ...] | None = None
    schema: str | None = None
    private: bool = False
    keep_last: int = 0

    def allows_event_type(self, event: str | None) -> bool:
        """Whether events of this type may be published; none counts as `message`."""
        kind = event or DEFAULT_EVENT_TYPE
        if self.types is not None:
            return any(glob.match(kind) for glob in self.types)
        return self.event_types is None or self.event_types.fullmatch(kind) is not None


def compile_glob(glob: str) -> re.Pattern[str]:
    """A pattern of event types or topics, to be matched from the start."""
    return re.compile(fnmatch.translate(glob))


def _check_pattern(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from None
    return text


class TopicRule(BaseModel):
    """One rule: a glob and the values for the topics that match it."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    match: Annotated[str, Field(min_length=1, max_length=1024), GLOB] = option(
        ...,
        "The topics: `*` is any text, also with slashes; `?` is any one character, "
        "`[ab]` one of several.",
    )
    history_events: EventsKept | None = option(None, "Events that are kept of each topic.")
    history_age: AgeKept | None = option(None, "How long an event is kept.")
    history_bytes: BytesKept | None = option(None, "Bytes that are kept of each topic.")
    keep_last: Annotated[Count, Field(ge=0, le=10_000)] | None = option(
        None, "The newest events of each topic, which are kept however old they are."
    )
    lag_policy: LagPolicy | None = option(
        None,
        "What happens to a stream that is behind: it is cut, skips to the newest "
        "event, or gets the newest event of each topic.",
    )
    types: Annotated[tuple[TypeGlob, ...], BeforeValidator(read_list), TypeCount, GLOBS] | None = (
        option(
            None,
            "The event types that may be published, as patterns like `match`; an event "
            "without a type is a `message`. Others are refused.",
        )
    )
    event_types: Annotated[str, AfterValidator(_check_pattern), PATTERN] | None = option(
        None, "Deprecated, use `types`: a regular expression that a whole event type must match."
    )
    envelope: EnvelopeKind | None = option(
        None,
        "The form in which streams get events that do not ask for one: as they are, or "
        "in a JSON envelope.",
    )
    max_publish_rate: PublishRate | None = option(
        None, "Events a second of each topic; publishers above it are answered with 429."
    )
    data_schema: Annotated[str, BeforeValidator(read_schema), SCHEMA] | None = option(
        None, "A JSON Schema for the data; other data is refused with 422."
    )
    private: Switch = option(False, "Every event is private: reading needs a grant.")

    _glob: re.Pattern[str] = PrivateAttr()
    _event_types: re.Pattern[str] | None = PrivateAttr()
    _types: tuple[re.Pattern[str], ...] | None = PrivateAttr()

    def model_post_init(self, context: object, /) -> None:
        """Compile patterns once."""
        self._glob = re.compile(fnmatch.translate(self.match))
        self._types = None if self.types is None else tuple(map(compile_glob, self.types))
        self._event_types = re.compile(self.event_types) if self.event_types is not None else None

    def matches(self, topic: str) -> bool:
        """Whether `topic` matches this rule."""
        return self._glob.match(topic) is not None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.types is not None and self.event_types is not None:
            raise ValueError("a rule has either types or event_types")
        return self

    @property
    def types_patterns(self) -> tuple[re.Pattern[str], ...] | None:
        """`types`, compiled."""
        return self._types

    @property
    def event_types_pattern(self) -> re.Pattern[str] | None:
        """`event_types`, compiled."""
        return self._event_types
