"""Checks that a tag, the version and the changelog name the same release: `release.py v1.2.3`.

With `--notes` it prints the changelog's section of the version, for the page of the release.
Needs only Python: a workflow runs it before it builds.
"""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_VERSION = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)
# `1.2.3`, `1.2.3rc1`, `1.2.3.post1`: what PyPI takes, without local parts.
_ALLOWED = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?(\.post\d+)?")
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_RELEASED = re.compile(r"(\S+) \((\d{4}-\d{2}-\d{2})\)")
_PAGE = re.compile(r'^\.TH \S+ 1 "" "fastsse ([^"]+)"', re.MULTILINE)


def sections(changelog: str) -> dict[str, str]:
    """The text below each heading of the second level, in order."""
    parts = _HEADING.split(changelog)[1:]
    return dict(zip(parts[::2], (text.strip() for text in parts[1::2]), strict=True))


def problems(tag: str, root: Path) -> list[str]:
    """What keeps a tag from being released; nothing if it can be."""
    named = tag.removeprefix("v")
    if named == tag or not _ALLOWED.fullmatch(named):
        return [f"tag {tag!r}: not of the form v1.2.3, v1.2.3rc1 or v1.2.3.post1"]
    found = []
    version = _VERSION.findall((root / "fastsse" / "version.py").read_text("utf-8"))
    if version != [named]:
        found.append(f"fastsse/version.py has {version}, the tag has {named}")
    found += _changelog_problems(named, (root / "CHANGELOG.md").read_text("utf-8"))
    for page in sorted((root / "deploy" / "share" / "man" / "man1").glob("*.1")):
        if _PAGE.findall(page.read_text("utf-8")) != [named]:
            found.append(f"{page.name} is of another version: run `make reference`")
    return found


def _changelog_problems(version: str, text: str) -> list[str]:
    there = sections(text)
    dated = [name for name in there if _RELEASED.fullmatch(name)]
    mine = [name for name in dated if name.split()[0] == version]
    if not mine:
        return [f"CHANGELOG.md has no heading `## {version} (YYYY-MM-DD)`"]
    found = []
    if dated[0] != mine[0]:
        found.append(f"CHANGELOG.md: {dated[0]} stands above {mine[0]}")
    if not there[mine[0]]:
        found.append(f"CHANGELOG.md: nothing is listed below {mine[0]}")
    if there.get("Unreleased"):
        found.append("CHANGELOG.md: `Unreleased` still has entries")
    return found


def notes(tag: str, root: Path) -> str:
    """The changelog's section of a tag's version."""
    there = sections((root / "CHANGELOG.md").read_text("utf-8"))
    return next(text for name, text in there.items() if name.split()[0] == tag.removeprefix("v"))


def main(arguments: list[str] | None = None) -> int:
    """0 if the tag can be released, else 1 with a line for each problem."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tag", help="such as v1.2.3")
    parser.add_argument("--notes", action="store_true", help="print the changelog's section")
    parser.add_argument("--root", type=Path, default=ROOT, help="the sources (default: these)")
    given = parser.parse_args(arguments)
    found = problems(given.tag, given.root)
    for problem in found:
        print(problem, file=sys.stderr)
    if not found and given.notes:
        print(notes(given.tag, given.root))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
