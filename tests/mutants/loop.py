"""Tries changes one after the other, each in a fork of a process that has collected the tests.

A fork makes its change and runs the tests that can notice it, the quickest first, to the first
failure. So a change takes as long as these tests.
"""

import gc
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
from types import FrameType
from typing import Any, Final, Protocol

import pytest

from tests.mutants.forks import run_tests

#: Seconds of processor time for a change, and as many times what its tests took without it.
_LEAST_S: Final = 5
_TIMES: Final = 5
#: As many times of that on the clock: a machine with other work is no reason to stop.
_PATIENCE: Final = 6
_UNTRIED: Final = 77


class Reached:
    """Which tests run which lines of a file, and how long each test takes; a plugin of pytest,
    which writes itself to a pipe at the end. Without a file it takes the time only.

    A line that runs while modules are imported is one of no test. One of a fixture of several tests
    is one of the first that needs it.
    """

    def __init__(self, path: str | None, pipe: int) -> None:
        self._path, self._pipe, self._test = path, pipe, ""
        self._lines: defaultdict[int, set[str]] = defaultdict(set)
        self.seconds: Final[dict[str, float]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self._test, begun_s = item.nodeid, time.monotonic()
        if self._path is not None:
            threading.settrace(self._called)
            sys.settrace(self._called)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
            self.seconds[item.nodeid] = time.monotonic() - begun_s

    def pytest_sessionfinish(self) -> None:
        with os.fdopen(self._pipe, "wb") as file:
            pickle.dump(self, file)

    def _called(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename == self._path else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        self._lines[frame.f_lineno].add(self._test)
        return self._line

    def files(self) -> list[str]:
        """Those with a test that runs any line."""
        tests = set[str]().union(*self._lines.values())
        return sorted({test.partition("::")[0] for test in tests})

    def tests_of(self, lines: Iterable[range]) -> set[str]:
        """Those of the first range that any test runs a line of."""
        for one in lines:
            found = (self._lines[line] for line in one if line in self._lines)
            if tests := set[str]().union(*found):
                return tests
        return set()


class Changes(Protocol):
    """What is tried, by numbers from 0."""

    #: A Python file of which it must be known which tests run its lines.
    path: str | None

    def __len__(self) -> int: ...

    def prepare(self) -> None:
        """Called once, before the first fork."""

    def near(self, number: int, reached: Reached) -> Collection[str]:
        """The tests that can notice a change."""

    def make(self, number: int) -> bool:
        """Makes a change in this process; whether that can be done."""


@dataclass
class Tried:
    """What came of the changes.

    Attributes:
        survivors: the numbers of those that the near tests let pass.
        untried: the numbers of those that no test is near, and that can't be made in a fork.
        files: those with tests that reach the file.
        fails: the tests fail without a change.
    """

    survivors: list[int] = field(default_factory=list)
    untried: list[int] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    fails: bool = False


def tried(
    changes: Changes,
    tests: Sequence[str],
    jobs: int,
    tell: Callable[[int], None] = lambda number: None,
) -> Tried:
    """Tries changes with these files or folders, `jobs` at a time, in a fork of this process. Calls
    `tell` with each survivor at once."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        with os.fdopen(write, "wb", buffering=0) as pipe:
            loop = _Loop(changes, jobs, lambda number: pipe.write(pickle.dumps(number)))
            status = run_tests(tests, loop)
            if os.getpid() == loop.process:
                pipe.write(pickle.dumps(loop.result))
            os._exit(status)
    os.close(write)
    result: Tried | None = None
    with os.fdopen(read, "rb") as file, suppress(EOFError):
        while result is None:
            found = pickle.load(file)
            if isinstance(found, Tried):
                result = found
            else:
                tell(found)
    os.waitpid(child, 0)
    return result or Tried(fails=True)


class _Loop:
    """A plugin of pytest: tries the changes when the tests are collected. In a fork it leaves the
    tests that it has chosen to pytest."""

    def __init__(self, changes: Changes, jobs: int, tell: Callable[[int], object]) -> None:
        self._changes, self._jobs, self._tell = changes, jobs, tell
        self.process: Final = os.getpid()
        self.result: Final = Tried()
        # By the process: the number of its change, and when it has had enough time.
        self._running: dict[int, tuple[int, float]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        reached = self._reached(session)
        if reached is None or os.getpid() != self.process:
            self.result.fails = True
            return None if os.getpid() != self.process else True
        self.result.files = reached.files()
        self._changes.prepare()
        # No fork looks for garbage in what all of them have.
        gc.collect()
        gc.freeze()
        for number in range(len(self._changes)):
            tests = self._changes.near(number, reached)
            while len(self._running) >= self._jobs:
                self._wait()
            if not tests:
                self.result.untried.append(number)
                continue
            limit_s = _LEAST_S + _TIMES * sum(reached.seconds[test] for test in tests)
            if self._fork(number, limit_s) == 0:
                if not self._changes.make(number):
                    os._exit(_UNTRIED)
                chosen = [item for item in session.items if item.nodeid in tests]
                session.items[:] = sorted(chosen, key=lambda item: reached.seconds[item.nodeid])
                return None
        while self._running:
            self._wait()
        return True

    def _reached(self, session: pytest.Session) -> Reached | None:
        """Runs all tests in a fork, without a change. None if they fail, and in the fork."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            session.config.pluginmanager.register(Reached(self._changes.path, write))
            return None
        os.close(write)
        found: Reached | None = _read(read)
        _, status = os.waitpid(child, 0)
        return found if status == 0 else None

    def _fork(self, number: int, limit_s: float) -> int:
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            resource.setrlimit(resource.RLIMIT_CPU, (int(limit_s), int(limit_s) + 1))
        else:
            self._running[child] = number, time.monotonic() + _PATIENCE * limit_s
        return child

    def _wait(self) -> None:
        """Until one of the forks has ended. One that waits for too long is ended, and its change
        was noticed."""
        while True:
            for child, (number, deadline_s) in self._running.items():
                done, status = os.waitpid(child, os.WNOHANG)
                if not done and time.monotonic() > deadline_s:
                    os.kill(child, signal.SIGKILL)
                    done, status = os.waitpid(child, 0)
                if done:
                    with suppress(ProcessLookupError):
                        os.killpg(child, signal.SIGKILL)  # What a test has started.
                    del self._running[child]
                    if status == 0:
                        self.result.survivors.append(number)
                        self._tell(number)
                    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == _UNTRIED:
                        self.result.untried.append(number)
                    return
            time.sleep(0.005)


def _read(pipe: int) -> Any:
    """What the other process wrote before it ended; None for nothing."""
    with os.fdopen(pipe, "rb") as file:
        raw = file.read()
    return pickle.loads(raw) if raw else None
