"""After a rush on a busy CPU every reader is at the newest event soon."""

import subprocess
import sys
from pathlib import Path

from tests.loadtests.conftest import ROOT, TIMEOUT_S


def catchup(log: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtests.catchup", "--log", str(log), "--rounds", "1"]
    return subprocess.run(
        [*command, "--seconds", "1", "--readers", "30", *words],
        cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip


def test_every_reader_reaches_the_newest_event_after_a_rush(tmp_path: Path) -> None:
    done = catchup(tmp_path / "log")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("1 rounds: no reader stayed behind.\n")


def test_a_reader_that_stays_behind_is_reported(tmp_path: Path) -> None:
    """Of 30 readers the server lets in 25."""
    words = ("--options", "--max-connections 25", "--bound", "1")
    done = catchup(tmp_path / "log", *words)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "5 behind" in done.stdout
    assert "open False" in done.stdout
