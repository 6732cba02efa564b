"""`[[sources]]`: other systems, and how their messages become events."""

import base64
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)

from fastsse.config.kinds import (
    MASK,
    Choice,
    Count,
    OptionGroup,
    Switch,
    ValueKind,
    option,
    read_list,
    read_rules,
    repeated_names,
)
from fastsse.config.source_url import SYSTEMS, check_source_url
from fastsse.config.store import MEMORY, show_store
from fastsse.config.tomltext import toml_text

__all__ = [
    "EXPRESSION",
    "FILE_PREFIX",
    "MAPPING",
    "PLACEHOLDER",
    "SECRETS",
    "SETTINGS",
    "SOURCES",
    "SOURCE_URL",
    "TOPIC_NAMES",
    "FilterText",
    "Secrets",
    "SourceName",
    "SourceOptions",
    "SourceRule",
    "masked_settings",
    "source_conflicts",
]

if TYPE_CHECKING:
    from fastsse.config.settings import Config

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
# Placeholders of a template: the channel or stream, the text of the n-th wildcard, a field, the
# key, a header, the place, a member of the payload's JSON or of `meta`; with a default behind `|`.
PLACEHOLDER: Final = re.compile(
    r"\{((?:channel|stream|topic|key|partition|offset|file|[1-9]|(?:field|header)\.[^{}|]{1,128}"
    r"|data(?:\.[^{}|.]{1,64}){0,8}|meta\.[A-Za-z0-9_]{1,64})(?:\|[^{}]{0,128})?)\}"
)
_CHANNELS_MAX: Final = 100
_TABLE: Final = r"^[A-Za-z_][A-Za-z0-9_$]{0,62}(\.[A-Za-z_][A-Za-z0-9_$]{0,62})?$"
_META_MAX: Final = 32
FILE_PREFIX: Final = "file:"
# Settings on which exactly-once and the memory bounds depend, and one that loads programs.
_OWN_SETTINGS: Final = (
    "bootstrap.servers",
    "group.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "enable.partition.eof",
    "plugin.library.paths",
)
_SECRET: Final = re.compile(r"password|secret|token|key\.pem|jaas", re.IGNORECASE)


def read_settings(value: object) -> object:
    """Settings as text; numbers and switches as TOML has them."""
    if not isinstance(value, dict):
        return value
    return {
        str(name): str(one).lower() if isinstance(one, bool) else str(one)
        for name, one in value.items()
    }


def masked_settings(settings: Mapping[str, str]) -> dict[str, str]:
    """Settings without secrets."""
    return {name: MASK if _SECRET.search(name) else value for name, value in settings.items()}


def show_settings(settings: Mapping[str, str]) -> str:
    """Settings without secrets, as TOML."""
    return toml_text(masked_settings(settings))


SOURCE_NAME = ValueKind("NAME", "1 to 64 letters, digits or ._-")
TEMPLATE = ValueKind(
    "TEMPLATE",
    "text with {channel}, {stream}, {1} to {9}, {field.NAME}, {meta.NAME}, {data.NAME}, {key}, "
    "{header.NAME}, {topic}, {partition}, {offset} or {file}; {NAME|text} has a default",
    example="orders/{1}",
)
PATTERNS = ValueKind("PATTERN", "1 to 100 patterns of PSUBSCRIBE", ",".join)
TABLE = ValueKind("TABLE", "a table of PostgreSQL, with or without its schema")
FILES = ValueKind("PATH", "1 to 100 paths of files, which may have wildcards", ",".join)
PLACE = ValueKind("FILE", "the path of a file")
KEY = ValueKind("KEY", "a name of 1 to 1024 characters")
SOURCE_URL = ValueKind(
    "URL",
    "a redis://, rediss://, unix://, kafka://, kafkas://, nats://, natss://, postgresql://, "
    "mqtt:// or mqtts:// URL",
    show_store,
)
TOPIC_NAMES = ValueKind("TOPIC", "1 to 100 names of topics", ",".join)
EXPRESSION = ValueKind("EXPRESSION", "an expression", example='data.level == "error"')
SECRETS = ValueKind(
    "SECRET", "secrets: whsec_ and the base64 of 24 to 64 bytes", lambda _: MASK, secret=True
)
SETTINGS = ValueKind("TABLE", "a table of settings of the client library", show_settings)
MAPPING = ValueKind("TABLE", f"a table of at most {_META_MAX} names and templates", toml_text)
SOURCES = ValueKind(
    "JSON", "a list of at most 100 tables with name, and channels, stream, topics, table or files"
)


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


def check_filter(text: str) -> str:
    """An expression that can be compiled."""
    # Imported here, because `expressions/` is above `config/`.
    from fastsse.expressions.parser import parse

    parse(text)
    return text


def check_settings(settings: Mapping[str, str]) -> Mapping[str, str]:
    """Settings of the client library that do not break a promise of the source."""
    for name in settings:
        if name in _OWN_SETTINGS:
            raise ValueError(f"{name} is set by the source itself")
    return settings


def check_secret(secret: SecretStr) -> SecretStr:
    """A secret of Standard Webhooks: `whsec_` and base64 of 24 to 64 bytes."""
    text = secret.get_secret_value()
    try:
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not text.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ValueError("must be a secret")
    return secret


SourceName = Annotated[str, AfterValidator(check_name), SOURCE_NAME]
Secrets = Annotated[
    tuple[Annotated[SecretStr, AfterValidator(check_secret)], ...],
    BeforeValidator(read_list),
    Field(max_length=10),
    SECRETS,
]
FilterText = Annotated[str, AfterValidator(check_filter), EXPRESSION]
Template = Annotated[
    str, Field(min_length=1, max_length=1024), AfterValidator(check_template), TEMPLATE
]
Key = Annotated[str, Field(min_length=1, max_length=1024), KEY]
TopicNames = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=249)], ...],
    BeforeValidator(read_list),
    Field(max_length=_CHANNELS_MAX),
    TOPIC_NAMES,
]
MetaName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
Payload = Annotated[Literal["data", "json", "auto", "envelope"], Choice]
Start = Annotated[Literal["earliest", "latest"], Choice]


class SourceRule(BaseModel):
    """One source: of Redis, Kafka, NATS, PostgreSQL, MQTT, files, or a webhook."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: SourceName = option(
        ..., "Names the source in commands, logs and metrics, and a webhook in its path."
    )
    url: Annotated[str, AfterValidator(check_source_url), SOURCE_URL] | None = option(
        None,
        "Where the other system is; its scheme says which one. Without it the Redis of `store`.",
    )
    channels: Annotated[
        tuple[str, ...], BeforeValidator(read_list), Field(max_length=_CHANNELS_MAX), PATTERNS
    ] = option(
        (),
        "Channels of Redis whose messages become events; those sent while the server "
        "is away are lost. With PostgreSQL, channels of NOTIFY.",
    )
    stream: Key | None = option(
        None, "A stream of Redis, or of JetStream, which is read at least once."
    )
    topics: TopicNames = option((), "Topics of Kafka, subjects of NATS or topic filters of MQTT.")
    table: Annotated[str, Field(pattern=_TABLE), TABLE] | None = option(
        None,
        "An outbox table of PostgreSQL with a column `id`; its rows become events and are deleted.",
    )
    files: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=4_096)], ...],
        BeforeValidator(read_list),
        Field(max_length=_CHANNELS_MAX),
        FILES,
    ] = option((), "Files whose lines become events; `*` and `?` stand for parts of a name.")
    place: Annotated[str, Field(min_length=1, max_length=4_096), PLACE] | None = option(
        None, "The file that keeps how far each of `files` was read."
    )
    group: Key = option(
        "fastsse", "The consumer group, queue group, durable consumer, or part of the client id."
    )
    start: Start | None = option(
        None,
        "Where a group without a place begins; without it `latest` with a stream of "
        "Redis, else `earliest`.",
    )
    topic: Template | None = option(None, "Template of the event's topic.")
    event: Template | None = option(None, "Template of the event's type.")
    id: Template | None = option(None, "Template of an id of your own.")
    data: Template | None = option(
        None,
        "Template of the event's data. One placeholder alone is the value itself, so "
        "that JSON stays JSON.",
    )
    meta: Annotated[dict[MetaName, Template], Field(max_length=_META_MAX), MAPPING] | None = option(
        None,
        "Values for filters and envelopes: a template for each; one that has no value is left out.",
    )
    filter: FilterText | None = option(
        None, "An expression; events that do not match are left out."
    )
    payload: Payload = option(
        "data",
        "What the payload is: data, JSON (else it is set aside), JSON or text, or the "
        "JSON object of `POST /events`.",
    )
    field: Key = option(
        "data",
        "The field of a stream's entry with the payload; an entry without it is its "
        "fields as JSON.",
    )
    private: Switch = option(False, "The events are private.")
    pending: Annotated[Count, Field(ge=1, le=100_000)] = option(
        1000, "The most events that wait for the log."
    )
    dead_letter: Key | None = option(
        None,
        "Where messages go that can't become events: a stream of the same Redis, a "
        "topic of the same Kafka, or `file:PATH`. Without it they are only logged.",
    )
    settings: (
        Annotated[
            dict[str, str], BeforeValidator(read_settings), AfterValidator(check_settings), SETTINGS
        ]
        | None
    ) = option(None, "Settings of the Kafka client, by the names of librdkafka.")

    secrets: Secrets = option(
        (),
        "Make it a webhook: requests to `/webhooks/NAME` that one of them signed "
        "(Standard Webhooks) become events.",
    )

    @property
    def system(self) -> str:
        """The other system, such as `redis` or `webhook`."""
        if self.secrets:
            return "webhook"
        if self.files:
            return "files"
        return SYSTEMS[self.url.partition(":")[0]] if self.url else "redis"

    @property
    def letter_file(self) -> str | None:
        """The path of a file of dead letters."""
        letters = self.dead_letter or ""
        return letters.removeprefix(FILE_PREFIX) if letters.startswith(FILE_PREFIX) else None

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_what_is_read()
        if self.topic is None and self.payload != "envelope":
            raise ValueError(f"{self.name} needs topic, or envelopes with a topic")
        uses_meta = any("{meta." in (text or "") for text in (self.topic, self.event, self.id))
        if uses_meta and self.payload != "envelope" and not self.meta:
            raise ValueError(f'{self.name} needs meta or payload = "envelope" for {{meta.NAME}}')
        if any("{meta." in text for text in (self.meta or {}).values()):
            raise ValueError(f"{self.name} can't use {{meta.NAME}} within meta")
        if self.data is not None and self.payload == "envelope":
            raise ValueError(f"{self.name} takes data from the envelope")
        return self

    def _check_what_is_read(self) -> None:
        if self.system == "webhook":
            if self.url is not None:
                raise ValueError(f"{self.name} has secrets, so it needs no url")
            if self.topics or self.channels or self.stream is not None:
                raise ValueError(f"{self.name} needs neither channels, stream nor topics")
            if self.dead_letter is not None:
                raise ValueError(f"{self.name} answers 422 and has no dead_letter")
        elif self.system == "files":
            if any((self.url, self.topics, self.channels, self.stream, self.table)):
                raise ValueError(f"{self.name} has files, so it needs nothing else to read")
        elif self.system == "redis":
            if self.topics:
                raise ValueError(f"{self.name} needs a kafka:// url for topics")
            if bool(self.channels) == (self.stream is not None):
                raise ValueError(f"{self.name} needs either channels or stream")
        elif self.system == "postgres":
            if bool(self.channels) == (self.table is not None) or self.topics or self.stream:
                raise ValueError(f"{self.name} needs either table or channels, and nothing else")
        elif self.system == "nats":
            if self.channels or not (self.topics or self.stream):
                raise ValueError(f"{self.name} needs topics or stream, and no channels")
        elif not self.topics or self.channels or self.stream is not None:
            raise ValueError(f"{self.name} needs topics, and neither channels nor stream")
        if self.table is not None and self.system != "postgres":
            raise ValueError(f"{self.name} has a table, which needs a postgresql:// url")
        if self.place is not None and self.system != "files":
            raise ValueError(f"{self.name} has a place, which is for files")
        takes_names = self.system in ("redis", "kafka") or self.letter_file is not None
        if self.dead_letter is not None and not takes_names:
            raise ValueError(f"{self.name} needs dead_letter = file:PATH")
        if self.settings and self.system != "kafka":
            raise ValueError(f"{self.name} has settings, which are for Kafka")
        if self.dead_letter is not None and self.dead_letter in (self.stream, *self.topics):
            raise ValueError(f"{self.name} would read its own dead letters")


class SourceOptions(OptionGroup):
    """Messages of other systems that become events."""

    title = "Sources"

    sources: Annotated[tuple[SourceRule, ...], BeforeValidator(read_rules), SOURCES] = option(
        (),
        "Messages of Redis, Kafka, NATS, PostgreSQL and MQTT, webhooks, and lines of files, that "
        "become events: name, url (default: that of the store), channels, stream, topics, table "
        "or files, place, group, start, topic, event, id, data, meta, filter, payload, field, "
        "private, pending, dead_letter, settings, secrets. In the "
        "file: [[sources]].",
        max_length=100,
    )


def source_conflicts(config: "Config") -> Iterator[tuple[str, str]]:
    """Conflicts between sources, and between sources and the store."""
    readers: set[tuple[str, str, str]] = set()
    yield from repeated_names("sources", config.sources)
    for index, source in enumerate(config.sources):
        url = source.url or config.store
        if source.files and source.place is None and config.store != MEMORY:
            yield f"sources[{index}].place", "set for files when the store survives a restart"
        if "://" not in url and source.system not in ("webhook", "files"):
            yield f"sources[{index}].url", "set when store is not a Redis"
        for key in ("stream", "dead_letter"):
            if url == config.store and _is_of_the_log(config, getattr(source, key)):
                yield f"sources[{index}].{key}", "a key that the log itself does not use in Redis"
        for read in (*source.topics, *filter(None, (source.stream,))):
            if (url, read, source.group) in readers:
                what = "stream" if source.stream else "topic"
                yield (
                    f"sources[{index}].group",
                    f"different from that of an earlier source with the same {what}",
                )
            readers.add((url, read, source.group))


def _is_of_the_log(config: "Config", key: str | None) -> bool:
    name = config.redis_stream
    return key is not None and (key == name or key.startswith(f"{{{name}}}:"))
