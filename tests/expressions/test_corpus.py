"""The corpus of expressions: what each gives for an event, and what is wrong with others. Every use
of the language goes by it."""

import json
from pathlib import Path
from typing import Any

import pytest

from fastsse._core import View, encode_frame
from fastsse.events import DATA_JSON, DATA_TEXT
from fastsse.expressions import InvalidExpression, compile_expression, matches

CORPUS = json.loads((Path(__file__).parent / "corpus.json").read_text())
EVENTS: dict[str, dict[str, Any]] = CORPUS["events"]


def meta_of(event: dict[str, Any]) -> bytes | None:
    return None if event["meta"] is None else json.dumps(event["meta"]).encode()


def type_of(event: dict[str, Any]) -> bytes | None:
    return None if event["event"] is None else event["event"].encode()


@pytest.mark.parametrize(("name", "text", "expected"), CORPUS["cases"])
def test_expression_gives(name: str, text: str, expected: bool | None) -> None:
    event = EVENTS[name]
    result = matches(
        compile_expression(text),
        topics=event["topics"],
        data=event["data"].encode(),
        event=type_of(event),
        meta=meta_of(event),
        data_kind=DATA_JSON if event["json"] else DATA_TEXT,
    )
    assert result is expected


def test_views_send_what_matches_and_no_errors() -> None:
    """The same expressions in a view: an error is no match."""
    for name, text, expected in CORPUS["cases"]:
        event = EVENTS[name]
        kind = DATA_JSON if event["json"] else DATA_TEXT
        frame = encode_frame(
            event["data"].encode(), type_of(event), b"1-1", 0, 1 << 64 | 1, data_kind=kind
        )
        view = View(filter=compile_expression(text))
        sent, _ = view.select([frame], [tuple(event["topics"])], [meta_of(event)])
        assert [one.body for one in sent] == ([frame.body] if expected else []), text


@pytest.mark.parametrize(("text", "position", "reason"), CORPUS["invalid"])
def test_invalid_expression_is_refused_where_it_is_wrong(
    text: str, position: int, reason: str
) -> None:
    with pytest.raises(InvalidExpression) as caught:
        compile_expression(text)
    assert (caught.value.position, reason in caught.value.reason) == (position, True), caught.value
    assert f"at character {position + 1}: " in str(caught.value)
