"""`Config`: all options, validated once."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from fastsse.config.catalogue import (
    TABLES,
    Option,
    catalogue,
    closest_name,
    table_catalogue,
)
from fastsse.config.console import ConsoleOptions
from fastsse.config.errors import DEFAULT, ConfigError, OptionProblem
from fastsse.config.eventrules import EVENT_RULES, EventRuleOptions
from fastsse.config.hooks import HOOKS, HookOptions
from fastsse.config.kinds import PATTERN, RULES, SCHEMA, is_loopback
from fastsse.config.mirrors import MIRROR_URL, MIRRORS, MirrorOptions
from fastsse.config.options import (
    HistoryOptions,
    HttpOptions,
    LimitOptions,
    ListenOptions,
    LogOptions,
    PresenceOptions,
    ProcessOptions,
    StreamOptions,
)
from fastsse.config.plugins import InterceptorOptions
from fastsse.config.relations import conflicts
from fastsse.config.sources import EXPRESSION, SETTINGS, SOURCE_URL, SOURCES, SourceOptions
from fastsse.config.store import STORE, RedisOptions, StoreOptions
from fastsse.config.tls import TlsOptions
from fastsse.config.tokens import TokenOptions
from fastsse.config.webhooks import WEBHOOKS, WebhookOptions

ARGUMENT = "an argument"
_CONFLICT = "conflict"
_WORD = re.compile(r"[a-z_]+")
_HOW_TO_LIST = "`fastsse config show` lists them."
# Text with a syntax: say where it breaks.
_EXPLAINED_KINDS = (
    EXPRESSION, SETTINGS, MIRRORS, MIRROR_URL, WEBHOOKS, HOOKS, EVENT_RULES, SOURCES, SOURCE_URL,
    STORE, PATTERN, RULES, SCHEMA,
)  # fmt: skip


# The last base's options come first.
class Config(
    LogOptions,
    ProcessOptions,
    ConsoleOptions,
    PresenceOptions,
    LimitOptions,
    TokenOptions,
    HttpOptions,
    EventRuleOptions,
    InterceptorOptions,
    HookOptions,
    MirrorOptions,
    WebhookOptions,
    SourceOptions,
    RedisOptions,
    HistoryOptions,
    StoreOptions,
    StreamOptions,
    TlsOptions,
    ListenOptions,
):
    """A validated configuration, frozen.

    `Config(port=0, max_lag="1MiB")` takes options as keyword arguments. It reads neither the
    environment nor files; `fastsse.config.load` does. Durations and sizes may be text with a unit.
    Raises ConfigError; its text is one line that names the option and what is allowed.
    """

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)
        except ValidationError as error:
            raise ConfigError(list(_problems(error, options))) from None

    @property
    def is_public(self) -> bool:
        """Whether other machines may reach the TCP addresses.

        False with `uds`, and with `fd`, whose address only the socket itself knows.
        """
        return self.uds is None and self.fd is None and not all(map(is_loopback, self.host))

    @property
    def publishing_needs_token(self) -> bool:
        """Whether every publish needs a token."""
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


def _problems(error: ValidationError, given: Mapping[str, Any]) -> Iterator[OptionProblem]:
    details = error.errors(include_url=False)
    wrong = {str(detail["loc"][0]) for detail in details if detail["type"] != _CONFLICT}
    for detail in details:
        if detail["type"] == _CONFLICT:
            for name, value, allowed in detail["ctx"]["conflicts"]:
                yield OptionProblem(name, value, ARGUMENT if name in given else DEFAULT, allowed)
        else:
            yield _field_problem(detail)
    if wrong:
        yield from _conflicts_apart_from(wrong, given)


def _conflicts_apart_from(wrong: set[str], given: Mapping[str, Any]) -> Iterator[OptionProblem]:
    """Conflicts between the other options, so that all problems are reported at once. A conflict
    that names an invalid option is left out, because a valid value may resolve it."""
    try:
        Config(**{name: value for name, value in given.items() if name not in wrong})
    except ConfigError as error:
        for problem in error.problems:
            assert isinstance(problem, OptionProblem)
            about = {name for name in _WORD.findall(str(problem)) if name in catalogue()}
            if not any(name in bad or bad in name for name in about for bad in wrong):
                yield problem


def _field_problem(detail: ErrorDetails) -> OptionProblem:
    """The problem of an option, a rule, or a key of a rule with an invalid value."""
    loc = detail["loc"]
    table, key = str(loc[0]), str(loc[0])
    known, name = catalogue(), table
    if table in TABLES and len(loc) > 1:
        name = f"{table}[{loc[1]}]"
        if len(loc) == 2:
            return _rule_problem(name, known[table], detail)
        known, key = table_catalogue(table), str(loc[2])
        name += f".{key}"
    option = known.get(key)
    if option is None:  # The value is not shown: it may be a secret under a mistyped name.
        near = closest_name(key, list(known))
        list_of = _HOW_TO_LIST if name == key else f"allowed are {', '.join(known)}."
        return OptionProblem(name, None, ARGUMENT, f"did you mean {near}?" if near else list_of)
    value = "missing" if detail["type"] == "missing" else option.show_raw(detail["input"])
    allowed = option.allowed
    if option.kind in _EXPLAINED_KINDS and detail["type"] == "value_error":
        allowed += f" ({detail['ctx']['error']})"
    return OptionProblem(name, value, ARGUMENT, allowed)


def _rule_problem(name: str, option: Option, detail: ErrorDetails) -> OptionProblem:
    """The problem of a rule that is not a table, or whose keys conflict."""
    allowed = "a table" + option.kind.words.partition("tables")[2]
    if detail["type"] == "value_error":
        allowed += f" ({detail['ctx']['error']})"
    return OptionProblem(name, option.show_raw(detail["input"]), ARGUMENT, allowed)
