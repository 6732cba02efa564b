"""`make` is the one list of commands: it names each, in groups, and says what takes long."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
pytestmark = [
    needs_make,
    pytest.mark.skipif(not (ROOT / "Makefile").exists(), reason="this is no clone"),
]


def make(*arguments: str, text: str = "", **variables: str) -> str:
    environment = {**os.environ, **variables}
    environment.pop("MAKEFLAGS", None)
    done = subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT, env=environment, input=text, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def test_make_alone_lists_every_command_in_groups() -> None:
    listed = make()
    rules = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    found = re.search(r"^\.PHONY: (.*)$", rules, re.MULTILINE)
    assert found is not None
    for name in found[1].split():
        assert re.search(rf"^  make {name} +\S", listed, re.MULTILINE), name
    groups = [line for line in listed.splitlines() if line and not line.startswith(" ")]
    assert len(groups) == 3


def test_the_first_serve_says_that_it_builds_and_for_how_long(tmp_path: Path) -> None:
    planned = make("-n", "serve", f"VENV={tmp_path}/none")
    assert "Building, about a minute" in planned
    assert "pip install -q" not in planned


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_make_shell_knows_the_command(shell: str, tmp_path: Path) -> None:
    if not Path(shell).exists():
        pytest.skip(f"no {shell} here")
    command = tmp_path / "bin" / "fastsse"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\necho it is $1\n")
    command.chmod(0o755)
    (tmp_path / ".installed").touch()
    said = make("shell", f"VENV={tmp_path}", text="fastsse there\n", SHELL=shell)
    assert "it is there" in said
