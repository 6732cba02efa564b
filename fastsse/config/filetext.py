"""A configuration file to begin with, and the JSON Schema of configuration files."""

import json
import textwrap
import tomllib
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from fastsse.config.catalogue import REQUIRED, TABLES, Option, catalogue, table_catalogue
from fastsse.config.kinds import COUNT, DURATION, SIZE, SWITCH
from fastsse.config.sources import MAPPING, SETTINGS
from fastsse.config.tomltext import toml_text

_TABLE_EXAMPLES = {
    "topics": ['match = "prices/*"', "history_events = 10000"],
    "sources": [
        'name = "orders"',
        'url = "redis://127.0.0.1:6379"',
        'stream = "orders"',
        'topic = "orders"',
    ],
    "webhooks": [
        'name = "billing"',
        'url = "https://example.com/hook"',
        'topics = ["orders/{id}"]',
        'secrets = ["whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]',
    ],
    "mirrors": [
        'name = "archive"',
        'url = "kafka://127.0.0.1:9092"',
        'to = "events"',
    ],
    "hooks": [
        'name = "feeds"',
        'url = "https://example.com/hook"',
        'on = ["first", "last"]',
        'secrets = ["whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]',
    ],
    "rules": [
        'name = "failed-logins"',
        'action = "alert"',
        "count = 100",
        "when = 'event == \"login.failed\"'",
        'publish = "alerts"',
    ],
}
# Texts of numbers and units; `units.py` decides what is one.
_DURATION_PATTERN = r"^\s*[0-9.]+\s*(w|d|h|m|s|ms)?[0-9.wdhms\s]*$"
# Of a line of comment.
_WIDTH = 100
_SIZE_PATTERN = r"^\s*[0-9.]+\s*([KMGTkmgt]?[iI]?[bB])?\s*$"


def commented_file() -> str:
    """A TOML file with every option as a comment, with its help, range and default. Without its
    comment marks a line sets the default."""
    lines = [
        "# Options of `fastsse serve --config FILE`. Each line shows the default; remove its # to",
        "# change it. `fastsse config check --config FILE` reports what is wrong.",
    ]
    for group, options in groupby(catalogue().values(), key=lambda option: option.group):
        lines += ["", f"## {group}"]
        lines += [
            line for option in options if option.name not in TABLES for line in _lines(option)
        ]
    for table, example in _TABLE_EXAMPLES.items():
        lines += ["", *_comment(catalogue()[table].help), f"#[[{table}]]"]
        lines += [f"#{line}" for line in example]
    return "\n".join(lines) + "\n"


def _lines(option: Option) -> Iterator[str]:
    """An option's comment, then its line, which is empty after = without a default."""
    yield ""
    yield from _comment(option.help)
    yield from _comment(f"Allowed: {option.allowed}.")
    unset = option.default == "none"
    yield f"#{option.name} = {'' if unset else _default(option)}".rstrip()


def _comment(text: str) -> list[str]:
    breaks = textwrap.TextWrapper(_WIDTH, break_long_words=False, break_on_hyphens=False)
    breaks.initial_indent = breaks.subsequent_indent = "# "
    return breaks.wrap(text)


def _default(option: Option) -> str:
    """The default in the form of the file."""
    if option.repeatable:
        return toml_text(option.default.split(","))
    if option.kind in (COUNT, SWITCH) or option.default.isdigit():
        return option.default
    return toml_text(option.default)


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a configuration file, as editors of TOML complete it. It allows
    every valid file; only `fastsse config check` checks relations between options."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "fastsse",
        "description": "The configuration of fastsse serve.",
        **_object(catalogue().values()),
    }


def schema_text() -> str:
    """The schema as JSON with lines."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _object(options: Iterable[Option]) -> dict[str, Any]:
    given = list(options)
    properties = {option.name: _property(option) for option in given}
    found = {"type": "object", "additionalProperties": False, "properties": properties}
    required = [option.name for option in given if option.default == REQUIRED]
    return {**found, "required": required} if required else found


def _property(option: Option) -> dict[str, Any]:
    found: dict[str, Any] = {"description": option.help} if option.help else {}
    if option.name in TABLES:
        items = _object(table_catalogue(option.name).values())
        return {**found, "type": "array", "items": items}
    if option.default not in ("none", REQUIRED):
        found["default"] = tomllib.loads(f"default = {_default(option)}")["default"]
    return {**found, **_type(option)}


def _type(option: Option) -> dict[str, Any]:
    if option.choices:
        return {"enum": list(option.choices)}
    if option.kind == SWITCH:
        return {"type": "boolean"}
    if option.kind == COUNT:
        return {"type": "integer", **_limits(option)}
    if option.kind in (DURATION, SIZE):
        pattern = _DURATION_PATTERN if option.kind == DURATION else _SIZE_PATTERN
        return {"anyOf": [{"type": "string", "pattern": pattern}, _number(option)]}
    if option.kind in (MAPPING, SETTINGS):
        value = "string" if option.kind == MAPPING else ["string", "number", "boolean"]
        return {"type": "object", "additionalProperties": {"type": value}}
    if option.repeatable:
        strings = {"type": "array", "items": {"type": "string"}}
        return {"anyOf": [{"type": "string"}, strings]}
    return {"type": ["string", "integer"] if option.default.isdigit() else "string"}


def _number(option: Option) -> dict[str, Any]:
    return {"type": "number", **_limits(option)}


def _limits(option: Option) -> dict[str, Any]:
    limits = {"minimum": option.least, "maximum": option.most}
    return {name: value for name, value in limits.items() if value is not None}
