"""Runs tests with a changed module from the start, each time in a fork of a process that has
imported the packages already."""

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Module:
    """What is changed.

    Args:
        path: relative to the clone's root.
        tests: files or folders.
        limit_s: processor time of a run.
    """

    path: Path
    tests: Sequence[str]
    limit_s: int = 20

    @property
    def name(self) -> str:
        return ".".join(self.path.with_suffix("").parts)


class _Loader(importlib.abc.Loader, importlib.abc.MetaPathFinder):
    """Gives a module the code of a changed tree."""

    def __init__(self, module: Module, tree: ast.Module) -> None:
        self._module, self._tree = module, tree

    def find_spec(
        self, name: str, path: object, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._module.name:
            return None
        return importlib.util.spec_from_loader(name, self, origin=str(self._module.path))

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(self._module.path)
        exec(compile(self._tree, self._module.path, "exec"), module.__dict__)


def survives(module: Module, tree: ast.Module) -> bool:
    """Whether all tests of a module pass with a tree; one that takes too much processor time
    fails."""

    def run() -> int:
        sys.meta_path.insert(0, _Loader(module, tree))
        return run_tests(module.tests)

    return passes(module.limit_s, run)


def run_tests(files: Sequence[str], *plugins: object) -> int:
    """Runs tests without a word, to the first failure; pytest's status."""
    for number in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    # Our own plugin imports what is changed here, and pytest's importer would give it unchanged
    # code.
    left_out = ("fastsse.testing.plugin", "cacheprovider", "xdist")
    options = ["--assert=plain", "--tb=native", "-x", "-q", *(f"-pno:{name}" for name in left_out)]
    return int(pytest.main([*options, *files], plugins=list(plugins)))


def passes(limit_s: int, run: Callable[[], int]) -> bool:
    """Whether a function gives 0 in a fork, within so much processor time."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            os.setpgid(0, 0)
            resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s + 1))
            os._exit(run())
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
