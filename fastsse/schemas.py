"""JSON Schemas for the data of events: compiled once, then asked for each event.

jsonschema-rs is used because a schema is judged on the loop thread: it takes a fifth of the time of
fastjsonschema, and its regular expressions are matched in linear time, so that no data can make a
pattern slow. It knows the drafts 4 to 2020-12. References lead nowhere outside of the schema.
"""

from typing import Any, Final

import orjson

from fastsse.errors import SchemaMismatch

__all__ = ["SCHEMA_BYTES_MAX", "Schema", "read_schema"]

SCHEMA_BYTES_MAX: Final = 64 * 1024
# What stands for values of the data in messages, which are logged.
_MASK: Final = "the value"
_REASON_MAX: Final = 300


class Schema:
    """A compiled schema.

    Arguments:
        text: the schema as JSON, at most 64 KiB, without references to other documents.

    Raises ValueError when it is none, or when jsonschema-rs is not installed.
    """

    __slots__ = ("_validator",)

    def __init__(self, text: str) -> None:
        if len(text.encode()) > SCHEMA_BYTES_MAX:
            raise ValueError(f"a schema has at most {SCHEMA_BYTES_MAX:,} bytes")
        try:
            import jsonschema_rs
        except ImportError:
            raise ValueError("needs jsonschema-rs: pip install 'fastsse[schema]'") from None
        try:
            self._validator = jsonschema_rs.validator_for(
                orjson.loads(text),
                retriever=_retrieve_nothing,
                mask=_MASK,
                pattern_options=jsonschema_rs.RegexOptions(),
            )
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
            raise ValueError(_shortened(error.args[0])) from None

    def check(self, data: bytes, topic: str) -> None:
        """Raises SchemaMismatch when the data of an event is not JSON, or does not match. O(bytes).
        `topic` is the topic whose rule has this schema."""
        try:
            instance = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise SchemaMismatch(topic, "", "it is not JSON") from None
        if self._validator.is_valid(instance):
            return
        error = next(self._validator.iter_errors(instance))
        pointer = "".join(f"/{_escaped(part)}" for part in error.instance_path)
        raise SchemaMismatch(topic, pointer[:_REASON_MAX], _shortened(error.message))


def read_schema(value: Any) -> str:
    """A schema of a configuration as JSON: a table, the text of one, or the path of a file.

    Raises ValueError, also for a schema that can't be compiled.
    """
    if isinstance(value, dict):
        text = orjson.dumps(value).decode()
    elif not isinstance(value, str):
        raise ValueError("must be a table or a path")
    elif value.lstrip().startswith("{"):
        text = value
    else:
        text = _read(value)
    try:
        Schema(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error})") from None
    return text


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(SCHEMA_BYTES_MAX + 1).decode()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not a file of UTF-8"
        raise ValueError(f"can't be read: {reason}") from None


def _retrieve_nothing(uri: str) -> Any:
    raise ValueError(f"references to other documents are not allowed ({uri})")


def _escaped(part: object) -> str:
    """A member's name or an index in a JSON pointer (RFC 6901)."""
    return str(part).replace("~", "~0").replace("/", "~1")


def _shortened(text: object) -> str:
    first = str(text).partition("\n")[0]
    return first if len(first) <= _REASON_MAX else first[:_REASON_MAX] + "…"
