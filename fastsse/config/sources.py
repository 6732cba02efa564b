"""`[[sources]]`: existing Redis channels and streams, and how their messages become events."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fastsse.config.kinds import (
    Choice,
    Count,
    OptionGroup,
    Switch,
    ValueKind,
    option,
    read_list,
    read_rules,
)
from fastsse.config.redis_url import check_redis_url
from fastsse.config.store import show_store

__all__ = ["PLACEHOLDER", "SourceOptions", "SourceRule", "source_conflicts"]

if TYPE_CHECKING:
    from fastsse.config.settings import Config

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
# Placeholders of a template: the channel or stream, the text of the n-th wildcard, a field, a
# member of the envelope's `meta`.
PLACEHOLDER: Final = re.compile(
    r"\{(channel|stream|[1-9]|field\.[^{}]{1,128}|meta\.[A-Za-z0-9_]{1,64})\}"
)
_CHANNELS_MAX: Final = 100

SOURCE_NAME = ValueKind("NAME", "1 to 64 letters, digits or ._-")
TEMPLATE = ValueKind(
    "TEMPLATE",
    "text with {channel}, {stream}, {1} to {9}, {field.NAME} or {meta.NAME}",
    example="orders/{1}",
)
PATTERNS = ValueKind("PATTERN", "1 to 100 patterns of PSUBSCRIBE", ",".join)
REDIS_KEY = ValueKind("KEY", "a Redis key of 1 to 1024 characters")
REDIS_URL = ValueKind("URL", "a redis://, rediss:// or unix:// URL", show_store)
SOURCES = ValueKind("JSON", "a list of at most 100 tables with name and channels or stream")


def check_name(name: str) -> str:
    """A name that is valid in metrics and keys."""
    if not _NAME.fullmatch(name):
        raise ValueError("must be a name")
    return name


def check_template(template: str) -> str:
    """A template whose placeholders are known."""
    rest = PLACEHOLDER.sub("", template)
    if "{" in rest or "}" in rest:
        raise ValueError("has an unknown placeholder")
    return template


Template = Annotated[
    str, Field(min_length=1, max_length=1024), AfterValidator(check_template), TEMPLATE
]
RedisKey = Annotated[str, Field(min_length=1, max_length=1024), REDIS_KEY]


class SourceRule(BaseModel):
    """One source: Redis channels, or one Redis stream.

    - `channels`: patterns; messages published there become events. Messages published while the
      server is not subscribed are lost. With `stream` instead, every entry becomes an event, at
      least once, by a consumer group.
    - `topic`, `event`: templates. `{1}` is the text of the first wildcard of the pattern,
      `{meta.NAME}` a member of the envelope's `meta`.
    - `payload`: `data` uses the payload as the data of the event; `envelope` as the JSON object of
      `POST /events`, in which `topic` may be missing.
    - `field`: the field of the stream entry with the payload; without it, all fields as JSON.
    - `pending`: the maximum number of events that wait for the log.
    - `dead_letter`: a stream for entries that can't become an event; without it they are only
      logged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: Annotated[str, AfterValidator(check_name), SOURCE_NAME]
    url: Annotated[str, AfterValidator(check_redis_url), REDIS_URL] | None = None
    channels: Annotated[
        tuple[str, ...], BeforeValidator(read_list), Field(max_length=_CHANNELS_MAX), PATTERNS
    ] = ()
    stream: RedisKey | None = None
    group: RedisKey = "fastsse"
    topic: Template | None = None
    event: Template | None = None
    payload: Annotated[Literal["data", "envelope"], Choice] = "data"
    field: RedisKey = "data"
    private: Switch = False
    pending: Annotated[Count, Field(ge=1, le=100_000)] = 1000
    dead_letter: RedisKey | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.channels) == (self.stream is not None):
            raise ValueError(f"{self.name} needs either channels or stream")
        if self.stream is not None and self.stream == self.dead_letter:
            raise ValueError(f"{self.name} would read its own dead letters")
        if self.topic is None and self.payload != "envelope":
            raise ValueError(f"{self.name} needs topic, or envelopes with a topic")
        uses_meta = any("{meta." in (template or "") for template in (self.topic, self.event))
        if uses_meta and self.payload != "envelope":
            raise ValueError(f'{self.name} needs payload = "envelope" for {{meta.NAME}}')
        return self


class SourceOptions(OptionGroup):
    """Redis channels and streams that become events."""

    title = "Sources"

    sources: Annotated[tuple[SourceRule, ...], BeforeValidator(read_rules), SOURCES] = option(
        (),
        "Redis channels and streams that become events: name, url (default: that of the store), "
        "channels or stream and group, topic, event, payload, field, private, pending, "
        "dead_letter. In the file: [[sources]].",
        max_length=100,
    )


def source_conflicts(config: "Config") -> Iterator[tuple[str, str]]:
    """Conflicts between sources, and between sources and the store."""
    readers: set[tuple[str, str, str]] = set()
    names: set[str] = set()
    for index, source in enumerate(config.sources):
        url = source.url or config.store
        if "://" not in url:
            yield f"sources[{index}].url", "set when store is not a Redis"
        if source.name in names:
            yield f"sources[{index}].name", "different from those of other sources"
        for key in ("stream", "dead_letter"):
            if url == config.store and _is_of_the_log(config, getattr(source, key)):
                yield f"sources[{index}].{key}", "a key that the log itself does not use in Redis"
        if source.stream is not None and (url, source.stream, source.group) in readers:
            yield (
                f"sources[{index}].group",
                "different from that of an earlier source with the same stream",
            )
        readers.add((url, source.stream or "", source.group))
        names.add(source.name)


def _is_of_the_log(config: "Config", key: str | None) -> bool:
    name = config.redis_stream
    return key is not None and (key == name or key.startswith(f"{{{name}}}:"))
