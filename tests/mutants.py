"""Mutation tests: `python -m tests.mutants fastsse/backbone/judge.py tests/hub/test_keys.py …`.

Changes one thing of a module at a time (a comparison, a constant, a condition, a statement), runs
the tests, and lists the changes that no test noticed. Each runs in a fork of a process that has the
packages in memory already, so that one takes a second or two. Nothing is written to a file.
"""

import argparse
import ast
import copy
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
# Imported once, before the forks.
_PACKAGES = (
    "hypothesis", "pytest_asyncio", "uvloop", "httptools", "orjson",
    "structlog", "prometheus_client", "click", "rich.console", "httpx", "redis.asyncio", "jwt",
)  # fmt: skip
_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE,
    ast.GtE: ast.Gt, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_COUNTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip

Change = tuple[ast.AST, ast.AST]


def changes(tree: ast.Module) -> Iterator[Change]:
    """Each change: a node of the tree, and what stands in its place. Types, docstrings and
    constants outside functions are left out."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for statement in function.body:
                if not _is_text(statement):
                    for node in ast.walk(statement):
                        yield from ((node, other) for other in _others(node))


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
        case ast.Return(value=value) if value is not None and not _is_none(value):
            yield ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()) | ast.Assign() | ast.AugAssign() | ast.Raise():
            yield ast.Pass()
        case ast.Continue():
            yield ast.Break()


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


class _Replaced(ast.NodeTransformer):
    def __init__(self, node: ast.AST, other: ast.AST) -> None:
        self._node, self._other = node, other

    def visit(self, node: ast.AST) -> ast.AST:
        if node is self._node:
            return ast.copy_location(self._other, node)
        return self.generic_visit(node)


class _Loader(importlib.abc.Loader, importlib.abc.MetaPathFinder):
    """Gives a module the code of a changed tree."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self._name, self._path, self._tree = name, path, tree

    def find_spec(
        self, name: str, path: object, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._name:
            return None
        return importlib.util.spec_from_loader(name, self, origin=str(self._path))

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(self._path)
        exec(compile(self._tree, self._path, "exec"), module.__dict__)


def survives(name: str, path: Path, tree: ast.Module, tests: Sequence[str], limit_s: int) -> bool:
    """Whether all tests pass with a tree; one that takes too much processor time fails."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            os.setpgid(0, 0)
            resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s + 1))
            for number in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            sys.meta_path.insert(0, _Loader(name, path, tree))
            # Our own plugin imports what is changed here, and pytest's importer would give it
            # unchanged code.
            left_out = ("fastsse.testing.plugin", "cacheprovider", "xdist")
            options = ["--assert=plain", "-x", "-q", *(f"-pno:{name}" for name in left_out)]
            os._exit(int(pytest.main([*options, *tests])))
        os._exit(99)
    # Processor time is what counts: a machine with other work is no reason to stop.
    deadline = time.monotonic() + 20 * limit_s
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def run(
    path: Path,
    tests: Sequence[str],
    limit_s: int,
    tell: Callable[[str], None],
    most: int | None = None,
) -> int:
    """Tries each change, or the first `most`, reports survivors, and returns how many there are."""
    source = path.read_text("utf-8")
    name = ".".join(path.resolve().relative_to(ROOT).with_suffix("").parts)
    tree = ast.parse(source)
    if not survives(name, path, tree, tests, limit_s):
        raise SystemExit("the tests fail without a change, or take too long")
    found = list(changes(tree))[:most]
    survivors = 0
    for number, (node, other) in enumerate(found, 1):
        if number % 20 == 0:
            print(f"{number} of {len(found)}", file=sys.stderr, flush=True)
        changed = ast.fix_missing_locations(_Replaced(node, other).visit(_copied(tree, node)))
        if survives(name, path, changed, tests, limit_s):
            survivors += 1
            line = node.lineno  # type: ignore[attr-defined]
            tell(f"{path}:{line}: {_short(node)}  ->  {_short(other)}")
    tell(f"{path}: {len(found)} changes, {survivors} not noticed")
    return survivors


def _copied(tree: ast.Module, kept: ast.AST) -> ast.Module:
    """A copy of a tree in which one node is the same object."""
    return copy.deepcopy(tree, {id(kept): kept})


def _short(node: ast.AST) -> str:
    return ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).splitlines()[0][:60]


def main() -> int:
    """1 if a change was not noticed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("module", type=Path, help="such as fastsse/backbone/judge.py")
    parser.add_argument("tests", nargs="+", help="files or node ids of tests")
    parser.add_argument(
        "--limit", type=int, default=20, metavar="SECONDS", help="of processor time"
    )
    parser.add_argument("--most", type=int, metavar="COUNT", help="only the first changes")
    given = parser.parse_args()
    for package in _PACKAGES:
        importlib.import_module(package)

    def tell(text: str) -> None:
        print(text, flush=True)

    return int(run(given.module, given.tests, given.limit, tell, given.most) > 0)


if __name__ == "__main__":
    sys.exit(main())
