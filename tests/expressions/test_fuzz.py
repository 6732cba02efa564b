"""Expressions, steps and documents that no person would write: each is refused, or gives what a
slow second evaluation gives."""

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastsse._core import FILTER_ROOTS, FILTER_STEPS, Filter
from fastsse.events import DATA_JSON
from fastsse.expressions import InvalidExpression, compile_expression, matches
from fastsse.expressions.parser import parse
from fastsse.expressions.tree import Both, Call, Compared, Has, In, Node, Not, Path, Value

ERROR = object()

# ---- a second evaluation -------------------------------------------------------------------------


def second(node: Node, event: dict[str, Any]) -> Any:
    """The value of an expression, or ERROR, by Python's own values."""
    match node:
        case Value(value):
            return value
        case Path(parts):
            return followed(parts, event)
        case Has(path):
            return followed(path.parts, event) is not ERROR
        case Not(inner):
            value = second(inner, event)
            return (not value) if isinstance(value, bool) else ERROR
        case Both(sign, left, right):
            sides = second(left, event), second(right, event)
            decides = sign == "||"
            if any(side is decides for side in sides):
                return decides
            return (not decides) if all(isinstance(side, bool) for side in sides) else ERROR
        case Compared(sign, left, right):
            return compared(sign, second(left, event), second(right, event))
        case Call(name, left, right):
            return called(name, second(left, event), second(right, event))
        case In(left, right):
            return contained(second(left, event), right, event)


def followed(parts: tuple[str | int, ...], event: dict[str, Any]) -> Any:
    value = event[str(parts[0])]
    for part in parts[1:]:
        is_member = isinstance(value, dict) and isinstance(part, str) and part in value
        is_element = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if not is_member and not is_element:
            return ERROR
        value = value[part]
    return value


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def compared(sign: str, left: Any, right: Any) -> Any:
    if sign in ("==", "!="):
        if any(side is ERROR or isinstance(side, list | dict) for side in (left, right)):
            return ERROR
        both = is_number(left) and is_number(right)
        same = left == right and (both or type(left) is type(right))
        return same if sign == "==" else not same
    numbers = is_number(left) and is_number(right)
    if not numbers and not (isinstance(left, str) and isinstance(right, str)):
        return ERROR
    if isinstance(left, str):
        left, right = left.encode(), right.encode()
    return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[sign]


def called(name: str, left: Any, right: Any) -> Any:
    if not isinstance(left, str) or not isinstance(right, str):
        return ERROR
    return {
        "startsWith": left.startswith(right),
        "endsWith": left.endswith(right),
        "contains": right in left,
    }[name]


def contained(left: Any, right: Path | tuple[Any, ...], event: dict[str, Any]) -> Any:
    if isinstance(right, tuple):
        found: Any = False
        for one in right:
            found = compared("==", left, one)
            if found is not False:
                return found
        return ERROR if left is ERROR else found
    place = followed(right.parts, event)
    if left is ERROR or isinstance(left, list | dict):
        return ERROR
    if isinstance(place, dict):
        return left in place if isinstance(left, str) else ERROR
    if not isinstance(place, list):
        return ERROR
    return any(compared("==", left, one) is True for one in place)


# ---- generated ----------------------------------------------------------------------------------

keys = st.sampled_from(["a", "b", "é", 'q"', "x y"])
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\x7f")


def literal(value: Any) -> str:
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(one):08x}" for one in value) + '"'
    if isinstance(value, float) and not math.isfinite(value):
        return "0"
    return json.dumps(value).replace("e+", "e")


constants = scalars.map(literal)
paths = st.builds(
    lambda root, parts: root + "".join(parts),
    st.sampled_from(["data", "meta"]),
    st.lists(
        st.sampled_from([".a", ".b", '["é"]', "['q\"']", '["x y"]', "[0]", "[1]", "[2]"]),
        max_size=3,
    ),
) | st.just("event")
operands = constants | paths


def wider(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return (
        st.builds("!({})".format, inner)
        | st.builds("({} {} {})".format, inner, st.sampled_from(["&&", "||", "=="]), inner)
        | st.builds("has({})".format, paths.filter(lambda text: text[-1] in ']ab"'))
    )


relations = (
    st.builds(
        "({} {} {})".format,
        operands,
        st.sampled_from(["==", "!=", "<", "<=", ">", ">="]),
        operands,
    )
    | st.builds("({} in {})".format, operands, paths.filter(lambda text: text != "event"))
    | st.builds(
        lambda left, right: f"({left} in [{', '.join(right)}])",
        operands,
        st.lists(constants, max_size=3),
    )
    | st.builds(
        "{}.{}({})".format,
        paths,
        st.sampled_from(["startsWith", "endsWith", "contains"]),
        st.text(max_size=2).filter(lambda text: text.isalnum()).map(quoted),
    )
)
expressions = st.recursive(relations, wider, max_leaves=4)


@given(expressions, documents, st.dictionaries(keys, scalars, max_size=3), st.sampled_from("tk"))
@example('(data.a in [null, "x"])', {"a": "x"}, {}, "t")
def test_evaluation_is_that_of_a_second_one(
    text: str, data: Any, meta: dict[str, Any], event: str
) -> None:
    try:
        native = compile_expression(text)
    except InvalidExpression:
        return  # Nested too deep.
    # As a reader of JSON gets it, with every way to write a text.
    written = json.dumps(data, ensure_ascii=len(text) % 2 == 0)
    read = json.loads(written)
    expected = second(parse(text), {"data": read, "meta": meta, "event": event})
    result = matches(
        native,
        topics=("t",),
        data=written.encode(),
        event=event.encode(),
        meta=json.dumps(meta).encode(),
        data_kind=DATA_JSON,
    )
    assert result is (expected if isinstance(expected, bool) else None)


@given(st.text(max_size=60) | st.text("dametopic.()[]!&|=<>\"'\\ 019einhs,", max_size=60))
def test_any_text_is_an_expression_or_refused_with_a_position(text: str) -> None:
    position = 0
    try:
        compile_expression(text)
    except InvalidExpression as error:
        position = error.position
    assert 0 <= position <= len(text)


steps = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 4)), max_size=70)
parts = st.lists(keys | st.integers(0, 3), max_size=3).map(tuple)


@given(
    steps,
    st.lists(scalars, max_size=4),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=3),
    st.lists(st.builds(lambda root, rest: (root, *rest), st.sampled_from(FILTER_ROOTS), parts)),
    st.binary(max_size=40) | documents.map(lambda one: json.dumps(one).encode()),
)
def test_any_steps_are_refused_or_stay_within_their_bounds(
    codes: list[tuple[int, int]],
    values: list[Any],
    lists: list[tuple[int, int]],
    fields: list[tuple[Any, ...]],
    data: bytes,
) -> None:
    try:
        native = Filter(codes, values, lists, fields)
    except ValueError:
        return
    for topics in ((), ("a",), ("a", "b")):
        assert native.test(topics, data, None, data, DATA_JSON) in (True, False, None)


@given(st.binary(max_size=200) | st.text('{}[]":,\\ue0123456789.-+truefalsn ', max_size=40))
@example(b'{"a":1}x')
@example(b"[" * 200)
@example(b'"\\ud800"')
@example(b"01")
@example(b'{"a":1,}')
def test_what_is_no_json_has_no_fields(data: bytes | str) -> None:
    """By the judgement of Python's own reader, but for what that takes too much of."""
    text = data.encode() if isinstance(data, str) else data
    try:
        decoded = text.decode()
        value = json.loads(decoded, parse_constant=lambda word: 1 / 0)
        is_json = True
    except (ValueError, RecursionError, ZeroDivisionError):
        is_json = False
    native = Filter([(FILTER_STEPS["has"], 0)], [], [], [("data",)])
    found = native.test((), text, None, None, DATA_JSON)
    # Without fields the whole is text, so this asks for the first element instead.
    first = Filter([(FILTER_STEPS["has"], 0)], [], [], [("data", 0)])
    expected = is_json and isinstance(value, list) and len(value) > 0
    assert found is True
    if is_json or text.isascii():
        assert first.test((), text, None, None, DATA_JSON) is expected


@pytest.mark.parametrize("depth", [127, 128, 129, 5_000])
def test_deep_documents_are_bounded(depth: int) -> None:
    data = b"[" * depth + b"1" + b"]" * depth
    expression = compile_expression("has(data[0])")
    assert matches(expression, data=data, data_kind=DATA_JSON) is (depth <= 128)


def test_documents_of_very_many_values_count_as_none() -> None:
    for count, expected in ((60_000, True), (70_000, None)):
        data = json.dumps({"a": 1, "b": list(range(count))}).encode()
        assert matches(compile_expression("data.a == 1"), data=data) is expected
