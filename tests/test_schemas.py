"""A schema is compiled once, leads nowhere, and says where data does not match."""

import json
import sys
import time
from pathlib import Path

import pytest

from fastsse.config import Config, ConfigError
from fastsse.errors import SchemaMismatch
from fastsse.schemas import SCHEMA_BYTES_MAX, Schema, read_schema

ORDER = {
    "type": "object",
    "required": ["order"],
    "properties": {
        "order": {"type": "integer"},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
        "a/b~c": {"type": "null"},
    },
    "$defs": {"line": {"type": "object", "properties": {"sku": {"pattern": "^[A-Z]+$"}}}},
}


def mismatch(data: bytes, schema: object = ORDER) -> SchemaMismatch:
    with pytest.raises(SchemaMismatch) as caught:
        Schema(json.dumps(schema)).check(data, "orders")
    return caught.value


def test_data_that_matches_passes() -> None:
    Schema(json.dumps(ORDER)).check(b'{"order": 1, "lines": [{"sku": "AB"}]}', "orders")


@pytest.mark.parametrize(
    ("data", "pointer"),
    [
        (b"", ""),
        (b"not JSON", ""),
        (b"[1]", ""),
        (b"{}", ""),
        (b'{"order": "secret"}', "/order"),
        (b'{"order": 1, "lines": [{}, {"sku": "secret"}]}', "/lines/1/sku"),
        (b'{"order": 1, "a/b~c": 1}', "/a~1b~0c"),
        (b"[" * 100_000, ""),
        (b"1e999", ""),
    ],
)
def test_mismatch_has_a_pointer_and_no_value_of_the_data(data: bytes, pointer: str) -> None:
    error = mismatch(data)
    assert error.members == {"pointer": pointer, "topic": "orders"}
    assert (error.status, error.field) == (422, "data")
    assert "secret" not in str(error)
    assert len(str(error)) < 1_000


def test_pointer_and_reason_are_bounded() -> None:
    deep = {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"additionalProperties": {"$ref": "#/$defs/a"}, "type": "object"}},
    }
    data = b'{"name":' * 200 + b"1" + b"}" * 200
    assert len(str(mismatch(data, deep))) < 1_000


def test_no_data_makes_a_pattern_slow() -> None:
    schema = Schema('{"pattern": "^(a+)+$"}')
    begun = time.thread_time()
    with pytest.raises(SchemaMismatch):
        schema.check(b'"' + b"a" * 100_000 + b'!"', "t")
    assert time.thread_time() - begun < 5


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (7, "a table or a path"),
        ("{", "not JSON"),
        ({"type": "nothing"}, "not valid"),
        ({"pattern": "("}, "regex"),
        ({"pattern": "(?=a)b"}, "regex"),
        ({"$ref": "#/$defs/none"}, "does not exist"),
        ({"$ref": "http://127.0.0.1:1/schema"}, "not allowed"),
        ({"$ref": "file:///etc/passwd"}, "not allowed"),
        ({"$ref": "other.json"}, "other.json"),
        ({"title": "x" * SCHEMA_BYTES_MAX}, "at most"),
        ("/nothing/here.json", "can't be read: No such file"),
        ("/", "can't be read: Is a directory"),
        ("\0", "can't be read"),
    ],
    ids=range(13),
)
def test_what_is_no_schema_is_refused_at_the_start(value: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_schema(value)
    with pytest.raises(ConfigError, match="data_schema"):
        Config(topics=[{"match": "a", "data_schema": value}])


def test_schema_is_a_table_its_text_or_a_file(tmp_path: Path) -> None:
    path = tmp_path / "order.json"
    path.write_text(json.dumps(ORDER))
    for value in (ORDER, json.dumps(ORDER), str(path)):
        assert json.loads(read_schema(value)) == ORDER
    path.write_bytes(b" " * (SCHEMA_BYTES_MAX + 1))
    with pytest.raises(ValueError, match="at most"):
        read_schema(str(path))


def test_missing_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema_rs", None)
    with pytest.raises(ValueError, match=r"fastsse\[schema\]"):
        read_schema({})
