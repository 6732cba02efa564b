"""Changes of functions that are imported already: they get the code of the changed ones."""

import ast
import gc
from collections.abc import Collection, Iterator, Sequence
from types import CodeType, FunctionType
from typing import Final

from tests.mutants.changes import Change
from tests.mutants.forks import ROOT, Module
from tests.mutants.loop import Reached


class Swaps:
    """Changes of a module, as `loop.Changes`."""

    def __init__(self, module: Module, changes: Sequence[Change], tree: ast.Module) -> None:
        self.path: str | None = str(ROOT / module.path)
        self._changes: Final = changes
        self._tree: Final = tree
        self._functions: list[FunctionType] = []

    def __len__(self) -> int:
        return len(self._changes)

    def prepare(self) -> None:
        """Finds the functions and methods of the module."""
        functions = (thing for thing in gc.get_objects() if type(thing) is FunctionType)
        self._functions = [one for one in functions if one.__code__.co_filename == self.path]

    def near(self, number: int, reached: Reached) -> Collection[str]:
        """The tests that run the line, or else its statement, or else its function."""
        return reached.tests_of(self._changes[number].lines)

    def make(self, number: int) -> bool:
        """False for a function that has other variables of an outer one than before."""
        change = self._changes[number]
        codes = {
            (code.co_qualname, code.co_firstlineno): code
            for code in _codes(compile(change.applied(self._tree), "changed", "exec"))
            if code.co_qualname == change.function
        }
        is_made = False
        for function in self._functions:
            old = function.__code__
            new = codes.get((old.co_qualname, old.co_firstlineno))
            if new is None:
                continue
            if new.co_freevars != old.co_freevars:
                return False
            function.__code__ = new.replace(co_filename=old.co_filename)
            is_made = True
        return is_made


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)
