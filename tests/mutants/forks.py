"""Runs tests with a changed module, each time in a fork of a process that has imported the packages
already, so that one takes half a second."""

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import os
import pickle
import resource
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, Final

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


@dataclass
class Reached:
    """Which tests run which lines; a plugin of pytest.

    A line that runs while modules are imported, or in a fixture of several tests, is one of the
    first test that needs it.
    """

    path: str
    lines: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    _test: str = ""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self._test = item.nodeid
        threading.settrace(self._called)
        sys.settrace(self._called)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]

    def _called(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename == self.path else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        self.lines[frame.f_lineno].add(self._test)
        return self._line

    def files(self) -> list[str]:
        """Those with a test that runs any line."""
        tests = set[str]().union(*self.lines.values())
        return sorted({test.partition("::")[0] for test in tests})

    def tests_of(self, lines: Iterable[range]) -> set[str]:
        """Those of the first range that any test runs a line of."""
        for one in lines:
            if found := set[str]().union(*(self.lines[line] for line in one if line in self.lines)):
                return found
        return set()


@dataclass(frozen=True)
class _Only:
    """A plugin of pytest: leaves all other tests out."""

    tests: Collection[str]

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid in self.tests]


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


def survives(module: Module, tree: ast.Module, tests: Collection[str] | None = None) -> bool:
    """Whether all tests of a module, or these, pass with a tree; one that takes too much processor
    time fails."""
    if tests is None:
        return passes(module.limit_s, lambda: _run(module, tree, module.tests))
    files = sorted({test.partition("::")[0] for test in tests})
    return passes(module.limit_s, lambda: _run(module, tree, files, _Only(tests)))


def reached(module: Module, tree: ast.Module, folder: Path) -> Reached | None:
    """Which tests run which of the module's lines; None if they fail without a change."""
    file = folder / "lines"

    def run() -> int:
        plugin = Reached(str(module.path))
        status = _run(module, tree, module.tests, plugin)
        file.write_bytes(pickle.dumps(dict(plugin.lines)))
        return status

    if not passes(10 * module.limit_s, run):
        return None
    return Reached(str(module.path), pickle.loads(file.read_bytes()))


def _run(module: Module, tree: ast.Module, files: Sequence[str], *plugins: object) -> int:
    sys.meta_path.insert(0, _Loader(module, tree))
    return run_tests(files, *plugins)


def run_tests(files: Sequence[str], *plugins: object) -> int:
    """Runs tests without a word, to the first failure; pytest's status."""
    for number in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    # Our own plugin imports what is changed here, and pytest's importer would give it unchanged
    # code.
    left_out = ("fastsse.testing.plugin", "cacheprovider", "xdist")
    options = ["--assert=plain", "-x", "-q", *(f"-pno:{name}" for name in left_out)]
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
