"""What a benchmark printed is kept with the machine that it ran on."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.keep import main

_RESULTS = Path(__file__).parents[2] / "bench" / "results"
_HEAD = ("command", "at", "commit", "machine", "took", "other programs", "exit status")


def head_of(text: str) -> dict[str, str]:
    lines = text.partition("\n\n")[0].splitlines()
    return dict(line.split(": ", 1) for line in lines)


def test_a_command_is_kept_with_what_it_printed_and_its_machine(tmp_path: Path) -> None:
    out = tmp_path / "a" / "run.txt"
    program = "import sys; print('x 1'); print('y 2', file=sys.stderr)"
    done = CliRunner().invoke(main, [str(out), "python", "-u", "-c", program])
    assert (done.exit_code, done.output) == (0, "x 1\ny 2\n")
    head, _, printed = out.read_text().partition("\n\n")
    assert printed == "x 1\ny 2\n"
    found = head_of(head)
    assert tuple(found) == _HEAD
    assert found["command"] == f"python -u -c {program}"
    assert found["exit status"] == "0"


def test_a_command_that_fails_is_kept_with_its_status(tmp_path: Path) -> None:
    out = tmp_path / "run.txt"
    done = CliRunner().invoke(main, [str(out), "python", "-c", "raise SystemExit('no')"])
    assert done.exit_code == 1
    assert head_of(out.read_text())["exit status"] == "1"


@pytest.mark.parametrize("path", sorted((_RESULTS / "kept").glob("*.txt")), ids=lambda p: p.stem)
def test_kept_runs_are_whole_and_of_a_commit(path: Path) -> None:
    found = head_of(path.read_text())
    assert tuple(found) == _HEAD
    assert found["exit status"] == "0"
    assert not found["commit"].endswith("-dirty")
