"""Makes native filters of expressions."""

from typing import Final

from fastsse._core import FILTER_STEPS, Filter
from fastsse.expressions.parser import parse
from fastsse.expressions.tree import (
    Both,
    Call,
    Compared,
    Constant,
    Has,
    In,
    Node,
    Not,
    Path,
    Value,
)

__all__ = ["compile_expression"]

_SIGNS: Final = {
    "==": "equal",
    "!=": "not_equal",
    "<": "below",
    "<=": "at_most",
    ">": "above",
    ">=": "at_least",
    "&&": "and",
    "||": "or",
    "startsWith": "starts",
    "endsWith": "ends",
    "contains": "contains",
}


def compile_expression(text: str) -> Filter:
    """The native filter of an expression. O(its length).

    Raises InvalidExpression, with the position of what is wrong.
    """
    compiler = _Compiler()
    compiler.add(parse(text))
    return Filter(compiler.steps, compiler.constants, compiler.lists, list(compiler.paths))


class _Compiler:
    """Writes the steps of an expression: a value's steps push it, an operator's follow its
    operands'."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        self.constants: list[Constant] = []
        self.lists: list[tuple[int, int]] = []
        self.paths: dict[tuple[str | int, ...], int] = {}

    def add(self, node: Node) -> None:
        """Adds the steps of an expression."""
        match node:
            case Value(value):
                self._step("const", self._constants((value,)))
            case Path():
                self._step("field", self._path(node))
            case Has(path):
                self._step("has", self._path(path))
            case Not(inner):
                self.add(inner)
                self._step("not")
            case In(left, right):
                self._add_in(left, right)
            case Both(sign, left, right) | Compared(sign, left, right) | Call(sign, left, right):
                self.add(left)
                self.add(right)
                self._step(_SIGNS[sign])

    def _add_in(self, left: Node, right: Path | tuple[Constant, ...]) -> None:
        self.add(left)
        if isinstance(right, Path):
            self.add(right)
            self._step("in")
        else:
            self.lists.append((self._constants(right), len(right)))
            self._step("in_list", len(self.lists) - 1)

    def _step(self, name: str, argument: int = 0) -> None:
        self.steps.append((FILTER_STEPS[name], argument))

    def _constants(self, values: tuple[Constant, ...]) -> int:
        self.constants += values
        return len(self.constants) - len(values)

    def _path(self, path: Path) -> int:
        return self.paths.setdefault(path.parts, len(self.paths))
