"""`Config`: all options, validated once into a type that cannot be wrong."""

from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from fastsse.config.catalogue import (
    ENVIRONMENT_PREFIX,
    catalogue,
    closest_name,
    table_catalogue,
)
from fastsse.config.errors import DEFAULT, ConfigError, Problem
from fastsse.config.kinds import PATTERN, RULES, is_loopback
from fastsse.config.limits import LimitOptions
from fastsse.config.options import (
    HistoryOptions,
    HttpOptions,
    ListenOptions,
    LogOptions,
    StreamOptions,
)
from fastsse.config.presence import PresenceOptions
from fastsse.config.processes import ProcessOptions
from fastsse.config.redis import RedisOptions
from fastsse.config.relations import conflicts
from fastsse.config.rights import RightsOptions
from fastsse.config.sources import REDIS_URL, SOURCES, SourceOptions
from fastsse.config.storing import STORE, StoreOptions

ARGUMENT = "an argument"
_CONFLICT = "conflict"
_HOW_TO_LIST = "`fastsse config show` lists them."
# Text with a syntax: say where it breaks.
_EXPLAINED_KINDS = (SOURCES, REDIS_URL, STORE, PATTERN, RULES)


# The last base's options come first.
class Config(
    LogOptions,
    ProcessOptions,
    PresenceOptions,
    LimitOptions,
    RightsOptions,
    HttpOptions,
    SourceOptions,
    RedisOptions,
    HistoryOptions,
    StoreOptions,
    StreamOptions,
    ListenOptions,
    BaseSettings,
):
    """A whole configuration, frozen.

    `Config(port=0, max_lag="1MiB")` takes options as keyword arguments and reads neither
    environment nor files (`fastsse.config.load` does). Durations and sizes may be text with a
    unit. Raises ConfigError, whose text is one line naming the option and what is allowed.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        env_prefix=ENVIRONMENT_PREFIX,
        enable_decoding=False,
    )

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)
        except ValidationError as error:
            raise ConfigError(list(_problems(error, options))) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Keyword arguments only: a program that embeds the server says what it wants."""
        return (init_settings,)

    @property
    def is_public(self) -> bool:
        """Whether other machines may reach the TCP addresses.

        False with `uds`, and with `fd`, whose address only the socket itself knows.
        """
        return self.uds is None and self.fd is None and not all(map(is_loopback, self.host))

    @property
    def publishing_needs_token(self) -> bool:
        """Whether there is any token without which nobody may publish."""
        return bool(self.publish_token) or self.publishers_need_tokens

    @model_validator(mode="after")
    def _check_relations(self) -> Self:
        broken = list(conflicts(self))
        if broken:
            shown = [(name, _shown(self, name), allowed) for name, allowed in broken]
            raise PydanticCustomError(_CONFLICT, "conflict", {"conflicts": shown})
        return self


def _shown(config: Config, name: str) -> str:
    """The value of `port` or `topics[0].history_bytes` as text."""
    if name in catalogue():
        return catalogue()[name].show(getattr(config, name))
    place, _, key = name.partition(".")
    table, _, index = place.partition("[")
    rule = getattr(config, table)[int(index.rstrip("]"))]
    return table_catalogue(table)[key].show(getattr(rule, key))


def _problems(error: ValidationError, given: Mapping[str, Any]) -> Iterator[Problem]:
    for detail in error.errors(include_url=False):
        if detail["type"] == _CONFLICT:
            for name, value, allowed in detail["ctx"]["conflicts"]:
                yield Problem(name, value, ARGUMENT if name in given else DEFAULT, allowed)
        else:
            yield _field_problem(detail)


def _field_problem(detail: ErrorDetails) -> Problem:
    """An option, or a key of a rule, whose own value can't be."""
    loc = detail["loc"]
    known, key = catalogue(), str(loc[0])
    name = key
    if len(loc) > 2:
        known, key = table_catalogue(str(loc[0])), str(loc[2])
        name = f"{loc[0]}[{loc[1]}].{key}"
    option = known.get(key)
    if option is None:  # Its value is not shown: it may be a secret under a mistyped name.
        near = closest_name(key, list(known))
        return Problem(name, None, ARGUMENT, f"did you mean {near}?" if near else _HOW_TO_LIST)
    value = "missing" if detail["type"] == "missing" else option.show_raw(detail["input"])
    allowed = option.allowed
    if option.kind in _EXPLAINED_KINDS and detail["type"] == "value_error":
        allowed += f" ({detail['ctx']['error']})"
    return Problem(name, value, ARGUMENT, allowed)
