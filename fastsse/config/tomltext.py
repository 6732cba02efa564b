"""Writes values as TOML, for messages about values from a file."""

import json
import re
from datetime import date, datetime, time

__all__ = ["toml_text"]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def toml_text(value: object) -> str:
    """Any value in one line; None, which TOML does not have, is `none`. O(size)."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {toml_text(value[key])}" for key in value) + "}"
    if isinstance(value, list | tuple | set | frozenset):
        return "[" + ", ".join(map(toml_text, value)) + "]"
    if isinstance(value, bytes | bytearray):
        value = bytes(value).decode("utf-8", "backslashreplace")
    return f'"{_printable(str(value))}"'


def _key(key: object) -> str:
    text = str(key)
    return text if _BARE_KEY.fullmatch(text) else json.dumps(text)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
