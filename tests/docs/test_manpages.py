"""The manual pages and completions in `deploy/share` are complete and valid; `test_reference`
compares their texts with the program."""

import shutil
import subprocess

import pytest

from fastsse.cli import COMMANDS
from fastsse.config import catalogue
from tests.docs.blocks import ROOT
from tests.docs.manpages import share_files

SHARE = ROOT / "deploy" / "share"


def test_each_command_has_a_page_and_each_option_stands_in_it() -> None:
    files = share_files()
    assert {f"man/man1/fastsse-{name}.1" for name in COMMANDS} <= files.keys()
    page = files["man/man1/fastsse-serve.1"].replace("\\-", "-")
    missing = [one.flag for one in catalogue().values() if one.flag not in page]
    assert missing == []


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="no mandoc here")
def test_pages_are_valid() -> None:
    words = ["mandoc", "-T", "lint", "-W", "warning", *SHARE.glob("man/man1/*.1")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    # Without a date: the same sources give the same pages.
    assert [line for line in done.stdout.splitlines() if "missing date" not in line] == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_read_their_completions(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    (path,) = (path for name in share_files() if name.startswith(shell) for path in [SHARE / name])
    subprocess.run([shell, "-n", path], check=True)
