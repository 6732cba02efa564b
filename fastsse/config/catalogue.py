"""The options as data, for help texts, error messages, `config show` and tables."""

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fastsse.config.eventrules import EventRule
from fastsse.config.hooks import HOOK_LISTS, HookRule
from fastsse.config.kinds import (
    DURATION,
    HEADER_NAMES,
    HOSTS,
    MASK,
    NAMES,
    NETWORKS,
    ORIGINS,
    SELECTORS,
    SIZE,
    ValueKind,
)
from fastsse.config.mirrors import MIRROR_URL, MirrorRule
from fastsse.config.options import GROUPS
from fastsse.config.rules import TopicRule
from fastsse.config.sources import (
    PATTERNS,
    SECRETS,
    SETTINGS,
    SOURCE_URL,
    TOPIC_NAMES,
    SourceRule,
    masked_settings,
)
from fastsse.config.tokens import REPEATED
from fastsse.config.tomltext import toml_text
from fastsse.config.webhooks import WebhookRule

ENVIRONMENT_PREFIX = "FASTSSE_"
# In place of the default of a key that a table must have.
REQUIRED = "required"
_TEXT = ValueKind("TEXT", "text")
# Where a text that may be a URL can contain a password: before the host, or in the query.
_PASSWORD = re.compile(r"(/[^/@:]*:)[^@]*@")
_QUERY = re.compile(r"((?:unix|rediss?):[^?]*\?).*(?=[\"'])")
# A setting whose name says that it is secret.
_SECRET = re.compile(r'((?:password|secret|token|pem|jaas)[^=,{]* = ")[^"]*', re.IGNORECASE)

_WEBHOOK_SECRET = re.compile(r"whsec_[A-Za-z0-9+/=]*")


@dataclass(frozen=True, slots=True)
class Option:
    """One option in words, as users see it.

    `allowed` completes "must be …"; `bounds` is the short form for tables. `least` and `most` are
    the bounds as numbers, of a duration in seconds and of a size in bytes. `choices` are the words
    that an option may be; empty if it is no choice.
    """

    name: str
    group: str
    help: str
    default: str
    allowed: str
    bounds: str
    repeatable: bool
    kind: ValueKind
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """The command line flag: `--max-lag`."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable: `FASTSSE_MAX_LAG`."""
        return ENVIRONMENT_PREFIX + self.name.upper()

    def show(self, value: Any) -> str:
        """A valid value as text that the option accepts again; secrets masked."""
        if value is None or value == ():
            return "none"
        if self.name in TABLES:
            return json.dumps([shown_rule(self.name, rule) for rule in value], ensure_ascii=False)
        return self.kind.show(value)

    def show_raw(self, value: object) -> str:
        """Any value, also an invalid one, in one line of bounded length; secrets masked."""
        if self.kind.secret and value is not None:
            return MASK
        text = _QUERY.sub(rf"\1{MASK}", _PASSWORD.sub(rf"\1{MASK}@", toml_text(value)))
        text = _WEBHOOK_SECRET.sub(MASK, _SECRET.sub(rf"\1{MASK}", text))
        return text if len(text) <= 80 else text[:77] + "…" + text[-1]


@cache
def catalogue() -> dict[str, Option]:
    """Every option by name, in the order of their groups."""
    return {
        name: _describe(name, field, group.title)
        for group in GROUPS
        for name, field in group.model_fields.items()
    }


TABLES: dict[str, type[BaseModel]] = {
    "topics": TopicRule,
    "sources": SourceRule,
    "webhooks": WebhookRule,
    "mirrors": MirrorRule,
    "hooks": HookRule,
    "rules": EventRule,
}
_LISTS = (
    *(HEADER_NAMES, HOSTS, NAMES, NETWORKS, ORIGINS),
    *(PATTERNS, TOPIC_NAMES, SECRETS, SELECTORS, *REPEATED, *HOOK_LISTS),
)
# Kinds whose values a rule has as numbers, and users as words; or as words with a password.
_IN_WORDS = (DURATION, SIZE, SOURCE_URL, MIRROR_URL)


@cache
def table_catalogue(table: str) -> dict[str, Option]:
    """The keys of a `[[topics]]` or `[[sources]]` table, by name."""
    fields = TABLES[table].model_fields
    return {name: _describe(name, field, "") for name, field in fields.items()}


def shown_rule(table: str, rule: BaseModel) -> dict[str, Any]:
    """The given values of a rule in the form of the file: durations and sizes in words."""
    known = table_catalogue(table)
    given = rule.model_dump(exclude_unset=True, exclude_none=True)
    return {key: _shown(known[key], value) for key, value in given.items()}


def _shown(option: Option, value: Any) -> Any:
    if option.kind == SETTINGS:
        return masked_settings(value)
    if option.kind == SECRETS:
        return [MASK] * len(value)
    return option.show(value) if option.kind in _IN_WORDS else value


def closest_name(name: str, names: list[str]) -> str | None:
    """The most similar name, if one is near."""
    near = difflib.get_close_matches(name.lower().replace("-", "_"), names, n=1, cutoff=0.7)
    return near[0] if near else None


def _describe(name: str, field: FieldInfo, group: str) -> Option:
    metadata = [*field.metadata, *_nested(field.annotation)]
    choices = next((get_args(item) for item in metadata if get_origin(item) is Literal), ())
    kind = next((item for item in metadata if isinstance(item, ValueKind)), _TEXT)
    if choices:
        kind = ValueKind("|".join(choices), _either(choices))
    default = REQUIRED if field.is_required() else _default_text(field.default, kind)
    return Option(
        name=name,
        group=group,
        help=field.description or "",
        default=default,
        allowed=_allowed(kind, _bounds(kind, metadata)),
        bounds=_bounds(kind, metadata) or kind.words,
        repeatable=kind in _LISTS,
        kind=kind,
        least=_number(metadata, Ge, "ge"),
        most=_number(metadata, Le, "le"),
        choices=choices,
    )


def _number(metadata: list[Any], bound: type, attribute: str) -> float | None:
    return next((getattr(item, attribute) for item in metadata if isinstance(item, bound)), None)


def _nested(annotation: Any) -> Iterator[Any]:
    """The annotation and everything inside it, metadata included."""
    yield annotation
    for item in (*getattr(annotation, "__metadata__", ()), *get_args(annotation)):
        if get_origin(annotation) is not Literal:
            yield from _nested(item)
    if isinstance(annotation, FieldInfo):
        yield from annotation.metadata


def _bounds(kind: ValueKind, metadata: list[Any]) -> str:
    least, most = _number(metadata, Ge, "ge"), _number(metadata, Le, "le")
    if least is None or most is None:
        return ""
    return f"{kind.show(least)} to {kind.show(most)}"


def _allowed(kind: ValueKind, bounds: str) -> str:
    text = f"{kind.words} from {bounds}" if bounds else kind.words
    return f"{text}, such as {kind.example}" if kind.example else text


def _either(choices: tuple[str, ...]) -> str:
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"


def _default_text(default: Any, kind: ValueKind) -> str:
    if default is None or default == ():
        return "none"
    return default if isinstance(default, str) else kind.show(default)


def markdown_table() -> str:
    """All options as the table of the reference: name, default, range and help."""
    rows = ["| option | default | allowed | what it does |", "| --- | --- | --- | --- |"]
    for option in catalogue().values():
        cells = (f"`{option.name}`", f"`{option.default}`", option.bounds, option.help)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"
