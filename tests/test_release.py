"""A release is made from one version: the tag's, the package's, the changelog's."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
_OLD = "## 1.1.0 (2026-10-01)\n\n- Old.\n"
_CHANGES = f"# Changelog\n\n## Unreleased\n\n## 1.2.0 (2026-11-29)\n\n- New.\n\n{_OLD}"
_USE = re.compile(r"uses: (\S+)(.*)")


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """The files that name a version, all of them 1.2.0."""
    write(tmp_path, "fastsse/version.py", '__version__ = "1.2.0"\n')
    write(tmp_path, "CHANGELOG.md", _CHANGES)
    write(
        tmp_path,
        "deploy/share/man/man1/fastsse.1",
        '.TH FASTSSE 1 "" "fastsse 1.2.0" "fastsse"\n',
    )
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def check(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    words = [sys.executable, ROOT / "deploy" / "release.py", "--root", root, *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_a_tag_that_all_files_name_is_released_with_its_notes(sources: Path) -> None:
    done = check(sources, "v1.2.0", "--notes")
    assert (done.returncode, done.stdout, done.stderr) == (0, "- New.\n", "")


@pytest.mark.parametrize("tag", ["1.2.0", "v1.2", "v1.2.0-rc1", "v1.2.0+local", "v", "vx.y.z"])
def test_a_tag_of_another_form_is_refused(sources: Path, tag: str) -> None:
    done = check(sources, tag)
    assert done.returncode == 1
    assert "not of the form" in done.stderr


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("fastsse/version.py", '__version__ = "1.2.1"\n', "version.py has ['1.2.1']"),
        ("CHANGELOG.md", _CHANGES.replace("1.2.0 (2026-11-29)", "1.2.0 (soon)"), "no heading"),
        ("CHANGELOG.md", _CHANGES.replace("- New.\n", ""), "nothing is listed"),
        (
            "CHANGELOG.md",
            _CHANGES.replace("## Unreleased\n", "## Unreleased\n\n- x\n"),
            "still has",
        ),
        (
            "CHANGELOG.md",
            _CHANGES.replace("## 1.2.0", "## 1.3.0 (2026-11-30)\n\n- x\n\n## 1.2.0"),
            "stands above",
        ),
        (
            "deploy/share/man/man1/fastsse.1",
            '.TH FASTSSE 1 "" "fastsse 1.1.0" "x"\n',
            "make reference",
        ),
    ],
)
def test_a_file_of_another_version_is_named(sources: Path, name: str, text: str, said: str) -> None:
    write(sources, name, text)
    done = check(sources, "v1.2.0")
    assert done.returncode == 1
    assert said in done.stderr


def test_this_version_cannot_be_released_while_its_section_is_open() -> None:
    """The real files are read; only the date of the section is missing."""
    from fastsse.version import __version__

    done = check(ROOT, f"v{__version__}")
    assert "version.py" not in done.stderr
    assert "make reference" not in done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_pin_each_action_by_its_hash_and_grant_nothing_by_default(path: Path) -> None:
    text = path.read_text()
    uses = _USE.findall(text)
    assert uses
    for action, comment in uses:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), f"{action} is not pinned"
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), f"{action} does not say its version"
    assert "\npermissions: {}\n" in text
