"""A wall clock that tests set while processes run with it. The machine's own stays as it is."""

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

_SOURCE = Path(__file__).with_name("wallclock.c")
_COMPILE_S = 60


class WallClock:
    """The clock of the processes that are started with `variables`.

    Arguments:
        folder: where its files lie.
    """

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("no C compiler here")
        folder.mkdir(parents=True, exist_ok=True)
        self._file, self._library = folder / "offset", folder / "wallclock.so"
        self._file.write_bytes(bytes(8))
        command = [compiler, "-O1", "-shared", "-fPIC", "-o", self._library, _SOURCE]
        subprocess.run(command, check=True, timeout=_COMPILE_S)

    @property
    def variables(self) -> dict[str, str]:
        """Of the environment of a process."""
        # What is loaded first, as a sanitizer is, stays the first.
        loaded = filter(None, [os.environ.get("LD_PRELOAD"), str(self._library)])
        return {"LD_PRELOAD": ":".join(loaded), "TEST_WALL_CLOCK": str(self._file)}

    def set(self, ahead_s: float) -> None:
        """Sets it to so many seconds ahead of the machine's; negative: behind it."""
        with self._file.open("r+b", buffering=0) as file:
            file.write(struct.pack("=q", round(ahead_s * 1e9)))
