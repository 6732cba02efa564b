"""What every test room shares. A test that leaves a file descriptor, a native frame or native
memory behind fails, whatever else it showed."""

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from fastsse import _core, _door, _seal
from tests import endings, tiers

# How long an example takes says how busy the machine is. Each run tries the same ones, so that what
# fails is what was changed; --hypothesis-profile=search looks for others.
settings.register_profile(
    "search", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("same", settings.get_profile("search"), derandomize=True)
settings.load_profile("same")
# A shell that runs the tests in the background has them ignore Ctrl-C, and with them every program
# that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Whose tests share what is started or parsed once, and so have one process where there are several.
TOGETHER = (
    "tests/loadtests/",
    "tests/docs/test_openapi.py",
    "tests/docs/test_site.py",
    "tests/test_house.py",
    "tests/cli/test_operator_commands.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--tier", choices=tiers.TIERS, default="all", help="Which tests run (tests/tiers.py)."
    )


def pytest_configure(config: pytest.Config) -> None:
    # Before any test, which would be taken for having left its descriptor behind.
    endings.start_watcher()
    for name, meaning in tiers.MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
    # What was asked for by its path is run. A worker's paths are those of the whole run.
    is_worker = hasattr(config, "workerinput")
    if not is_worker and config.args_source is pytest.Config.ArgsSource.ARGS:
        config.option.tier = "all"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    path = collection_path.relative_to(config.rootpath).as_posix()
    return True if tiers.is_ignored(path, config.option.tier) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks each test with its part, and leaves out those of other tiers."""
    kept, out = [], []
    for item in items:
        part = tiers.part_of(item.nodeid)
        if part is not None:
            item.add_marker(part.marker)
        (out if tiers.is_left_out(part, config.option.tier) else kept).append(item)
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = kept


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.args_source is pytest.Config.ArgsSource.ARGS:
        return
    for line in tiers.left_out(config.option.tier):
        terminalreporter.write_line(line)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Deals the tests out one by one, each of `TOGETHER` as one (xdist's interface)."""
    from xdist.scheduler import LoadScopeScheduling

    class Dealer(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next(filter(nodeid.startswith, TOGETHER), nodeid)

    return Dealer(config, log)


def open_fds() -> set[tuple[int, str]]:
    """The process's descriptors with what they point to."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
        except FileNotFoundError:
            continue  # the one that listed the directory
    return found


@pytest.fixture(autouse=True, scope="session")
def what_is_imported_is_not_searched_again() -> Iterator[None]:
    """Thousands of tests look for what they left behind; only what they made need be looked at."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def held() -> tuple[set[tuple[int, str]], int, int]:
    native_bytes = _core.native_bytes_held() + _door.native_bytes_held()
    native_bytes += _seal.native_bytes_held()
    return open_fds(), _core.native_frames_alive(), native_bytes


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Compares descriptors, frames and native bytes before and after."""
    before = held()
    yield
    if held() != before:
        gc.collect()  # What is in a cycle is garbage, not a leak.
    fds, frames, native_bytes = held()
    assert fds <= before[0]
    assert frames <= before[1]
    assert native_bytes <= before[2]
