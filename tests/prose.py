"""Finds words of the list in the project's texts: `python -m tests.prose`, part of `make lint`.

Texts are Markdown outside of code, and in code the comments, docstrings, string literals and names
of tests.
A folder that is not rewritten yet has a number in `tests/prose_allowed.json`: how many findings it
may have. `--update` lowers the numbers to what is there, and never raises one.
"""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
ALLOWED = Path(__file__).with_name("prose_allowed.json")

#: Pattern of a word, and what to write.
WORDS = {
    r"all told": "in total",
    r"(?:is|are|was|were) told (?:a|of a|one) gap": "receives a `fastsse.gap` event",
    r"told": "a standard verb: sent, notified, reported, answered",
    r"anew": "again",
    r"whoever": "a client that, a publisher that",
    r"in vain": "without success",
    r"lacks": "is missing, has no",
    r"let(?:s|ting)? go": "evict, drop, release",
    r"nobody": "no client, no process, none",
    r"beside": "next to, in addition to",
    r"mend(?:s|ed|ing)?": "fix, repair",
    r"(?:be|is|are|was|were) (?:felt|billed)": "affects, is counted",
    r"so long before": "before",
}
_WORD = re.compile(r"\b(?:" + "|".join(f"({word})" for word in WORDS) + r")\b", re.IGNORECASE)

_FENCE = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2", re.MULTILINE | re.DOTALL)
_NO_PROSE = re.compile(r"`[^`\n]*`|\]\([^)\n]*\)|<!--.*?-->", re.DOTALL)
_CODE = re.compile(
    r'"""(?:[^\\]|\\.)*?"""|"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'|#[^\n]*|\bdef test_\w+',
    re.DOTALL,
)
_HASH = re.compile(r"#[^\n]*")
_DASHES = re.compile(r"--[^\n]*")
_SLASHES = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_TEXTS = {
    ".py": _CODE, ".pyx": _CODE, ".pxd": _CODE, ".pyi": _CODE,
    ".lua": _DASHES, ".mjs": _SLASHES, ".js": _SLASHES, ".c": _SLASHES,
    ".sh": _HASH, ".cfg": _HASH, ".conf": _HASH, ".toml": _HASH, ".yaml": _HASH,
    ".service": _HASH, ".socket": _HASH,
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """A word of the list in a file."""

    path: str
    line: int
    word: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.word!r}; write: {self.instead}"


def _blank(match: re.Match[str]) -> str:
    """Nothing, in as many lines."""
    return "\n" * match[0].count("\n")


def texts(name: str, text: str) -> Iterator[tuple[int, str]]:
    """The texts of a file that people read, each with the offset where it begins."""
    suffix = Path(name).suffix
    if suffix == ".md":
        yield 0, _NO_PROSE.sub(_blank, _FENCE.sub(_blank, text))
    elif suffix in _TEXTS:
        for part in _TEXTS[suffix].finditer(text):
            before = text.count("\n", 0, part.start())
            words = part[0].replace("_", " ") if part[0].startswith("def ") else part[0]
            yield before, words


def search(name: str, text: str) -> Iterator[Found]:
    """The findings in a file."""
    instead = list(WORDS.values())
    for before, part in texts(name, text):
        for match in _WORD.finditer(part):
            line = before + part.count("\n", 0, match.start()) + 1
            assert match.lastindex is not None
            yield Found(name, line, match[0], instead[match.lastindex - 1])


def files() -> list[str]:
    """Every file of the project that is not generated; outside of a clone all that are there."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    names = done.stdout.splitlines()
    mine = ("tests/prose.py", "tests/test_prose.py")
    return sorted(name for name in names if name not in mine and (ROOT / name).is_file())


def findings() -> list[Found]:
    """The findings in all files."""
    found: list[Found] = []
    for name in files():
        if Path(name).suffix in _TEXTS or name.endswith(".md"):
            found += search(name, (ROOT / name).read_text("utf-8"))
    return found


def allowed() -> dict[str, int]:
    """How many findings a folder or a file may have; what is not named may have none."""
    numbers: dict[str, int] = json.loads(ALLOWED.read_text("utf-8"))
    return numbers


def group_of(name: str, groups: dict[str, int]) -> str:
    """The entry of the list that a file belongs to: the longest that its path begins with."""
    fitting = [group for group in groups if name == group or name.startswith(group + "/")]
    return max(fitting, key=len, default=name)


def over(found: list[Found], groups: dict[str, int]) -> list[str]:
    """A line for each finding of a group that has more than it may have."""
    counts = Counter(group_of(one.path, groups) for one in found)
    lines = []
    for group, count in sorted(counts.items()):
        if count > groups.get(group, 0):
            lines.append(f"{group}: {count} words of the list; allowed are {groups.get(group, 0)}")
            lines += [str(one) for one in found if group_of(one.path, groups) == group]
    return lines


def _update(found: list[Found], groups: dict[str, int]) -> None:
    counts = Counter(group_of(one.path, groups) for one in found)
    lower = {group: min(number, counts[group]) for group, number in groups.items()}
    kept = {group: number for group, number in sorted(lower.items()) if number}
    ALLOWED.write_text(json.dumps(kept, indent=2) + "\n", "utf-8")


def main() -> int:
    """Prints what is too much; 1 when there is any. `--all` prints every finding."""
    found, groups = findings(), allowed()
    if "--update" in sys.argv:
        _update(found, groups)
        groups = allowed()
    if "--all" in sys.argv:
        print("\n".join(map(str, found)))
    lines = over(found, groups)
    print("\n".join(lines), end="\n" if lines else "")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
