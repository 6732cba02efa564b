"""What every test room shares. A test that leaves a file descriptor, a native frame or native
memory behind fails, whatever else it showed."""

import gc
import os
from collections.abc import Iterator

import pytest

from fastsse import _core


def open_fds() -> set[tuple[int, str]]:
    """The process's descriptors with what they point to."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
        except FileNotFoundError:
            continue  # the one that listed the directory
    return found


@pytest.fixture(autouse=True)
def nothing_is_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Counts descriptors, frames and native bytes before and after."""
    gc.collect()
    fds = open_fds()
    frames, held = _core.native_frames_alive(), _core.native_bytes_held()
    yield
    if request.node.get_closest_marker("keeps_state"):
        return
    gc.collect()
    assert {fd for fd, _ in open_fds() - fds} == set(), open_fds() - fds
    assert _core.native_frames_alive() == frames
    assert _core.native_bytes_held() == held
