"""What is changed in a module, one thing at a time."""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE,
    ast.GtE: ast.Gt, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_COUNTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Change:
    """A node of a tree, and what stands in its place."""

    node: ast.AST
    other: ast.AST
    function: str
    #: Of the node, of the statement that it is part of, and of the function.
    lines: tuple[range, range, range]

    @property
    def text(self) -> str:
        """The same after lines were moved, so that a list can name it."""
        return f"{self.function}: {_short(self.node)}  ->  {_short(self.other)}"

    def applied(self, tree: ast.Module) -> ast.Module:
        """A copy of the tree with the change."""
        # The node is the same object in the copy, so that it is found.
        whole = copy.deepcopy(tree, {id(self.node): self.node})
        return ast.fix_missing_locations(_Replaced(self.node, self.other).visit(whole))


def changes(tree: ast.Module) -> Iterator[Change]:
    """Each change. Types, docstrings and constants outside functions are left out."""
    for node in tree.body:
        yield from _inside(node, "")


def _inside(node: ast.stmt, names: str) -> Iterator[Change]:
    if isinstance(node, ast.ClassDef):
        for statement in node.body:
            yield from _inside(statement, f"{names}{node.name}.")
    elif isinstance(node, _Function):
        for statement in node.body:
            if not _is_text(statement):
                yield from _of(statement, f"{names}{node.name}", _lines(node), statement)


def _of(node: ast.AST, function: str, whole: range, statement: ast.AST) -> Iterator[Change]:
    if isinstance(node, ast.stmt):
        statement = node
    for other in _others(node):
        yield Change(node, other, function, (_lines(node), _lines(statement), whole))
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue  # Of local names; nothing evaluates them.
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _of(child, function, whole, statement)


def _lines(node: ast.AST) -> range:
    first = getattr(node, "lineno", 0)
    return range(first, (getattr(node, "end_lineno", None) or first) + 1)


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _others(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(ops=[first, *rest]) if type(first) in _COMPARED:
            other = copy.copy(node)
            other.ops = [_COMPARED[type(first)](), *rest]
            yield other
        case ast.BoolOp():
            other = copy.copy(node)
            other.op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
            yield other
        case ast.UnaryOp(op=ast.Not()):
            yield node.operand
        case ast.BinOp() if type(node.op) in _COUNTED:
            other = copy.copy(node)
            other.op = _COUNTED[type(node.op)]()
            yield other
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int()):
            yield ast.Constant(node.value + 1)
        case ast.If() | ast.IfExp() | ast.While():
            other = copy.copy(node)
            other.test = ast.UnaryOp(ast.Not(), node.test)
            if not isinstance(node.test, ast.Compare | ast.UnaryOp):
                yield other
        case ast.Return(value=value) if value is not None and not _is_void(value):
            yield ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()) | ast.Assign() | ast.AugAssign() | ast.Raise():
            yield ast.Pass()
        case ast.Continue():
            yield ast.Break()


def _is_void(node: ast.expr) -> bool:
    # None for False is no change for callers that ask whether; True for False is tried.
    return isinstance(node, ast.Constant) and (node.value is None or node.value is False)


class _Replaced(ast.NodeTransformer):
    def __init__(self, node: ast.AST, other: ast.AST) -> None:
        self._node, self._other = node, other

    def visit(self, node: ast.AST) -> ast.AST:
        if node is self._node:
            return ast.copy_location(self._other, node)
        return self.generic_visit(node)


def _short(node: ast.AST) -> str:
    return ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).splitlines()[0][:60]
