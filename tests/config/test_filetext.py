"""The file to begin with, and the schema that editors complete it by."""

import re
from pathlib import Path

from fastsse.config import Config, catalogue, load
from fastsse.config.catalogue import TABLES, table_catalogue
from fastsse.config.filetext import commented_file, schema

_LINE = re.compile(r"^#(\w+) = ?(.*)$", re.MULTILINE)


def test_file_has_every_option_once_with_its_help() -> None:
    text = commented_file()
    head = text.partition("#[[")[0]
    assert [name for name, _ in _LINE.findall(head)] == [
        name for name in catalogue() if name not in TABLES
    ]
    flowing = text.replace("\n# ", " ")
    for option in catalogue().values():
        assert option.help in flowing


def test_no_comment_of_the_file_is_wider_than_a_window() -> None:
    comments = [line for line in commented_file().splitlines() if line.startswith("# ")]
    assert len(comments) > 100
    assert [line for line in comments if len(line) > 100] == []


def test_file_changes_nothing_until_a_mark_is_removed(tmp_path: Path) -> None:
    file = tmp_path / "fastsse.toml"
    file.write_text(commented_file())
    loaded = load(file=str(file))
    assert loaded.config == Config()
    assert set(loaded.origins.values()) == {"default"}


def test_lines_without_their_marks_set_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "fastsse.toml"
    head = commented_file().partition("#[[")[0]
    options = [f"{name} = {value}" for name, value in _LINE.findall(head) if value]
    file.write_text("\n".join(options))
    loaded = load(file=str(file))
    assert loaded.config == Config()
    assert sum("default" not in origin for origin in loaded.origins.values()) == len(options)


def test_examples_of_tables_are_valid(tmp_path: Path) -> None:
    file = tmp_path / "fastsse.toml"
    tables = commented_file().partition("#[[")
    store = f'store = "sqlite:{tmp_path}/history.db"\n'  # Webhooks need one.
    file.write_text(store + re.sub("^#(?! )", "", tables[1] + tables[2], flags=re.MULTILINE))
    config = load(file=str(file)).config
    assert config.topics[0].match == "prices/*"
    assert config.sources[0].name == "orders"


def test_schema_has_the_options_and_the_keys_of_tables_and_no_other() -> None:
    made = schema()
    assert made["additionalProperties"] is False
    assert list(made["properties"]) == list(catalogue())
    for table in TABLES:
        items = made["properties"][table]["items"]
        assert items["additionalProperties"] is False
        assert list(items["properties"]) == list(table_catalogue(table))
        assert [key for key, of in items["properties"].items() if not of.get("description")] == []


def test_schema_has_types_bounds_choices_and_defaults() -> None:
    properties = schema()["properties"]
    port = properties["port"]
    assert (port["type"], port["default"], port["maximum"]) == ("integer", 8080, 65535)
    assert properties["lag_policy"]["enum"] == ["disconnect", "skip", "latest"]
    assert properties["anonymous"]["type"] == "boolean"
    assert properties["retry"]["anyOf"][1] == {"type": "number", "minimum": 0.01, "maximum": 3600}
    assert properties["host"]["default"] == ["127.0.0.1"]
    assert all(one["description"] for one in properties.values())
