"""`[[mirrors]]`: events that are copied to other systems."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from fastsse.config.kinds import (
    Count,
    OptionGroup,
    Selectors,
    Switch,
    ValueKind,
    option,
    read_rules,
    repeated_names,
)
from fastsse.config.source_url import SYSTEMS, check_source_url
from fastsse.config.sources import (
    SETTINGS,
    FilterText,
    Key,
    SourceName,
    check_settings,
    read_settings,
)
from fastsse.config.store import MEMORY, show_store
from fastsse.config.webhooks import LETTER_FILE, check_letters

__all__ = ["MIRRORS", "MIRROR_URL", "MirrorOptions", "MirrorRule", "mirror_conflicts"]

if TYPE_CHECKING:
    from fastsse.config.settings import Config

MIRRORS = ValueKind("JSON", "a list of at most 100 tables with name and to")
MIRROR_URL = ValueKind(
    "URL",
    "a redis://, rediss://, unix://, kafka://, kafkas://, nats:// or natss:// URL",
    show_store,
)
_SYSTEMS: Final = frozenset({"redis", "kafka", "nats"})


class MirrorRule(BaseModel):
    """One copy of the events of some topics in another system."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: SourceName = option(..., "Names the mirror in logs and metrics, and in each copy.")
    to: Key = option(..., "The stream of Redis, the topic of Kafka, or the subject of NATS.")
    url: Annotated[str, AfterValidator(check_source_url), MIRROR_URL] | None = option(
        None, "Where the other system is. Without it the Redis of `store`."
    )
    topics: Selectors = option(("*",), "Topics or templates such as `orders/{id}`; `*` is all.")
    filter: FilterText | None = option(
        None, "An expression; events that do not match are left out."
    )
    private: Switch = option(False, "Private events are copied too.")
    keep: Annotated[Count, Field(ge=1, le=1_000_000_000)] = option(
        1_000_000, "About how many entries a stream of Redis keeps."
    )
    jetstream: Switch = option(
        True, "A stream of JetStream acknowledges each message; `false` is core NATS."
    )
    settings: (
        Annotated[
            dict[str, str], BeforeValidator(read_settings), AfterValidator(check_settings), SETTINGS
        ]
        | None
    ) = option(None, "Settings of the Kafka client, by the names of librdkafka.")
    dead_letter: Annotated[str, AfterValidator(check_letters), LETTER_FILE] | None = option(
        None,
        "A file for events that are refused for good, such as too long ones. Without "
        "it they are only logged.",
    )

    @property
    def system(self) -> str:
        """`redis`, `kafka` or `nats`."""
        return SYSTEMS[self.url.partition(":")[0]] if self.url else "redis"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.system not in _SYSTEMS:
            raise ValueError(f"{self.name} needs a url of Redis, Kafka or NATS")
        given = self.model_fields_set
        for name, system in (("keep", "redis"), ("jetstream", "nats"), ("settings", "kafka")):
            if name in given and self.system != system:
                raise ValueError(f"{self.name} has {name}, which is for {system.capitalize()}")
        return self


class MirrorOptions(OptionGroup):
    """Events that are copied to other systems."""

    title = "Mirrors"

    mirrors: Annotated[tuple[MirrorRule, ...], BeforeValidator(read_rules), MIRRORS] = option(
        (),
        "Copies of events in a stream of Redis, a topic of Kafka or a subject of NATS: name, to, "
        "url (default: that of the store), topics, filter, private, keep, jetstream, settings, "
        "dead_letter. Needs a store that survives a restart. In the file: [[mirrors]].",
        max_length=100,
    )


def mirror_conflicts(config: "Config") -> Iterator[tuple[str, str]]:
    """Conflicts between mirrors, and with sources and the store."""
    yield from repeated_names("mirrors", config.mirrors)
    read = {
        (source.url or config.store, name)
        for source in config.sources
        for name in (source.stream, *source.topics)
    }
    for index, rule in enumerate(config.mirrors):
        if rule.url is None and "://" not in config.store:
            yield f"mirrors[{index}].url", "given, because the store is not Redis"
        if (rule.url or config.store, rule.to) in read:
            yield f"mirrors[{index}].to", "another than a source reads, or events go in circles"
        if (rule.url or config.store, rule.to) == (config.store, config.redis_stream):
            yield f"mirrors[{index}].to", "another than redis_stream, which is the log itself"
    if config.mirrors and config.store == MEMORY:
        yield (
            "mirrors",
            "left out with store = memory, because the place of each is kept over restarts",
        )
