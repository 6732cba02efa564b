"""`python -m tests.mutants.native fastsse/native/frame.pxd tests/core/test_encoder.py`.

As `tests.mutants`, for a native header or module: every change is compiled in at once, in a copy of
the project below `build/mutants`, and a variable of the environment says which one is active. So a
header with a hundred changes is compiled once, and of a module only itself.

What is changed: comparisons, whole numbers, sums (no differences: of two pointers there is no sum),
`and`, conditions, and statements, which are left out.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.mutants import loop
from tests.mutants.forks import ROOT
from tests.mutants.imports import import_packages
from tests.mutants.loop import Reached
from tests.mutants.part import add_options, part_of

COPY: Final = ROOT / "build" / "mutants"
TABLE: Final = Path(__file__).with_name("native.toml")
CHOSEN: Final = "FASTSSE_MUTANT"
_COPIED: Final = (
    "fastsse", "tests", "bench", "loadtests", "conformance", "examples", "deploy", "build/cython",
)  # fmt: skip
_LEFT_OUT: Final = shutil.ignore_patterns("__pycache__", "*.pyc")

# The number of the active change. 0: none.
_ACTIVE: Final = f'''
cdef extern from *:
    """
    #ifndef FASTSSE_MUTANT
    #define FASTSSE_MUTANT
    #include <pthread.h>
    #include <stdlib.h>
    static int fastsse_mutant_number = -1;
    /* A fork has a change of its own. */
    static void fastsse_mutant_forget(void) {{ fastsse_mutant_number = -1; }}
    static int fastsse_mutant(void) {{
        if (fastsse_mutant_number < 0) {{
            static int is_told = 0;
            const char *text = getenv("{CHOSEN}");
            fastsse_mutant_number = text ? atoi(text) : 0;
            if (!is_told) pthread_atfork(NULL, NULL, fastsse_mutant_forget);
            is_told = 1;
        }}
        return fastsse_mutant_number;
    }}
    #endif
    """
    int mutant "fastsse_mutant()"
'''

_OTHER: Final = {
    "==": "!=", "!=": "==", "<": "<=", "<=": "<", ">": ">=", ">=": ">",
    "is not": "is", "is": "is not", "+": "-", "and": "or", "or": "and",
    "True": "False", "False": "True",
}  # fmt: skip
# A text, which is left alone, or something that is changed.
_PART: Final = re.compile(
    r"""b?c?"(?:\\.|[^"\\])*"|[bc]?'(?:\\.|[^'\\])*'"""
    r"|(?<= )(?:==|!=|<=|>=|is not|is|and|or|[<>+-])(?= )"
    r"|\b(?:True|False)\b|(?<![\w.])[0-9]+(?![\w.])"
)
_FUNCTION: Final = re.compile(r"(?:cdef|cpdef|def) .*?(\w+)\(.*:$")
_STATUS: Final = re.compile(r"cdef (?:inline )?int .* except -1:$")
_CLASS: Final = re.compile(r"(?:cdef )?class (\w+)")
_CONDITION: Final = re.compile(r"(if|elif|while) (.*):$")
_DECLARED: Final = re.compile(r"(cdef [^=,]*?) = ((?!\d+, ).*)$")
_SEVERAL: Final = re.compile(r"(cdef [\w.]+) (\w+ = .*, \w+(?: = |$|, ).*)")
_LEFT: Final = re.compile(r"[\w.\[\]&*]+ (?:[+|-]?=) |[\w.]+\(|del ")


@dataclass(frozen=True)
class Change:
    """A statement of a function, and what stands in its place."""

    number: int
    line: int
    function: str
    old: str
    new: str

    @property
    def text(self) -> str:
        """The same after lines were moved, so that a list can name it."""
        return f"{self.function}: {self.old}  ->  {self.new}"


def statements(text: str) -> Iterator[tuple[int, str]]:
    """The logical lines with their first physical ones, from 1. Comments and blank lines are
    empty."""
    whole, first, is_text = "", 0, False
    for number, line in enumerate(text.splitlines(), 1):
        is_fence = line.count('"""') % 2 == 1
        if is_text or is_fence or line.lstrip().startswith('"""'):
            is_text = is_text != is_fence
            yield number, line
            continue
        code = re.sub(r"\s+#.*$", "", line) if not line.lstrip().startswith("#") else ""
        whole = f"{whole} {code.strip()}" if whole else code.rstrip()
        first = first or number
        is_open = sum(map(whole.count, "([{")) > sum(map(whole.count, ")]}"))
        if whole.endswith("\\"):
            whole = whole[:-1].rstrip()
        elif not is_open:
            yield first, whole
            whole, first = "", 0


def variants(code: str) -> Iterator[str]:
    """The code with one part changed."""
    for found in _PART.finditer(code):
        part = found[0]
        if part.isdigit():
            other = str(int(part) + 1)
        elif part in _OTHER:
            other = _OTHER[part]
        else:
            continue
        yield code[: found.start()] + other + code[found.end() :]


def changed(text: str) -> tuple[str, list[Change]]:
    """A header in which each change is a branch, and the changes."""
    lines, changes, place = [], list[Change](), _Place()
    is_text = False
    for line, whole in statements(text):
        code, indent = whole.strip(), whole[: len(whole) - len(whole.lstrip())]
        is_fence = code.count('"""') % 2 == 1
        if is_text or code.startswith('"""') or not place.is_inside(whole):
            is_text = is_text != is_fence
            lines.append(whole)
            continue
        for one in _declarations(code):
            first = len(changes) + 1
            ways = [] if one == "return 0" and place.gives_status else list(_ways(one))
            changes += [
                Change(first + n, line, place.function, one, new) for n, (new, _) in enumerate(ways)
            ]
            lines += [indent + way for way in _branches(one, first, [part for _, part in ways])]
    return _after_imports(lines), changes


class _Place:
    """The function that a statement is in, as statements are read one after the other.

    Attributes:
        function: its name, with that of its class; empty for none.
        gives_status: its 0 only says that it has not raised.
    """

    def __init__(self) -> None:
        self.function = ""
        self.gives_status = False
        self._class = ""
        self._is_extern = False

    def is_inside(self, statement: str) -> bool:
        """Whether a statement is in a function or method; a head or a declaration is in none."""
        depth = (len(statement) - len(statement.lstrip())) // 4
        if not statement:
            return False
        if depth == 0:
            found = _CLASS.match(statement)
            self._class, self._is_extern = found[1] if found else "", "extern" in statement
        if depth == bool(self._class) and not self._is_extern:
            found = _FUNCTION.match(statement.strip())
            names = (self._class, found[1]) if found else ()
            self.function = ".".join(filter(None, names))
            self.gives_status = _STATUS.match(statement.strip()) is not None
            return False
        return bool(self.function) and not self._is_extern


def _declarations(code: str) -> list[str]:
    """The statement, or one for each name if it declares several with values: a value is changed
    alone."""
    found = _SEVERAL.match(code)
    if found is None:
        return [code]
    names, depth = [""], 0
    for part in re.split(r"(, )", found[2]):
        if part == ", " and not depth:
            names.append("")
        else:
            names[-1] += part
        depth += sum(map(part.count, "([{")) - sum(map(part.count, ")]}"))
    return [f"{found[1]} {name}" for name in names]


def _ways(code: str) -> Iterator[tuple[str, str]]:
    """What stands in place of a statement: the whole, and the part that `_branches` puts in."""
    if found := _CONDITION.match(code):
        yield from ((f"{found[1]} {other}:", other) for other in variants(found[2]))
        if not any(sign in f" {found[2]} " for sign in (" == ", " != ", " is ", " not ")):
            yield f"{found[1]} not ({found[2]}):", f"not ({found[2]})"
    elif found := _DECLARED.match(code):
        yield from ((f"{found[1]} = {other}", other) for other in variants(found[2]))
    elif code.startswith(("cdef ", "for ", "else", "try", "except", "with ", "raise ")):
        return
    else:
        yield from ((other, other) for other in variants(code))
        if _LEFT.match(code):
            yield "pass", "pass"


def _branches(code: str, first: int, others: Sequence[str]) -> list[str]:
    """The statement, or others by the number of the active change."""
    if not others:
        return [code]
    numbered = list(enumerate(others, first))
    found = _CONDITION.match(code) or _DECLARED.match(code)
    if found is None:
        ways = [f"if mutant == {number}: {other}" for number, other in numbered]
        return [ways[0], *(f"el{way}" for way in ways[1:]), f"else: {code}"]
    if code.endswith(":"):
        # No conditional expressions: parts of different types would become Python objects.
        wanted = [f"mutant == {number} and ({other})" for number, other in numbered]
        none = " and ".join(f"mutant != {number}" for number, _ in numbered)
        return [f"{found[1]} {' or '.join(wanted)} or {none} and ({found[2]}):"]
    chosen = "".join(f"({other}) if mutant == {number} else " for number, other in numbered)
    return [f"{found[1]} = ({chosen}({found[2]}))"]


def _after_imports(lines: Sequence[str]) -> str:
    imports = (n for n, line in enumerate(lines) if line.startswith(("from ", "import ")))
    last = max(imports, default=-1)
    return "\n".join([*lines[: last + 1], _ACTIVE, *lines[last + 1 :]]) + "\n"


def build(header: Path, text: str) -> None:
    """Compiles a copy of the project with this header. What does not depend on it is not compiled
    again. Raises CalledProcessError."""
    shutil.rmtree(COPY, ignore_errors=True)
    for name in _COPIED:
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, COPY / name, ignore=_LEFT_OUT)
    for path in (*ROOT.glob("*.py"), *ROOT.glob("*.toml"), *ROOT.glob("*.md")):
        shutil.copy(path, COPY)
    (COPY / header).write_text(text)
    words = ["setup.py", "-q", "build_ext", "--inplace", "--parallel", "2"]
    subprocess.run([sys.executable, *words], cwd=COPY, check=True)


class Switches:
    """Changes of a header, as `loop.Changes`: a variable says which one is active."""

    path: str | None = None

    def __init__(self, changes: Sequence[Change]) -> None:
        self._changes = changes

    def __len__(self) -> int:
        return len(self._changes)

    def prepare(self) -> None:
        """Nothing has to be."""

    def near(self, number: int, reached: Reached) -> Collection[str]:
        """All tests: nothing says which lines they run."""
        return reached.seconds.keys()

    def make(self, number: int) -> bool:
        """Always true."""
        os.environ[CHOSEN] = str(self._changes[number].number)
        return True


def tried(
    changes: Sequence[Change], tests: Sequence[str], jobs: int, tell: Callable[[Change], None]
) -> bool:
    """Calls `tell` with each change that no test notices; False if the tests fail without one. This
    process has nothing of fastsse yet, and imports the copy."""
    os.chdir(COPY)
    sys.path.insert(0, str(COPY))
    # Not the tool's own modules: other processes of it tell what they found in their types.
    ours = [name for name in sys.modules if f"{name}.".startswith("tests.")]
    for name in ours:
        if not name.startswith("tests.mutants"):
            del sys.modules[name]
    words = ["--tier=all", *tests]
    return not loop.tried(Switches(changes), words, jobs, lambda one: tell(changes[one])).fails


def left(header: Path) -> Mapping[str, str]:
    """The changes of a header that can't be noticed, and why."""
    found: Mapping[str, str] = tomllib.loads(TABLE.read_text("utf-8")).get(str(header), {})
    return found


def main() -> int:
    """1 if a change was not noticed and has no reason."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.native")
    parser.add_argument("header", type=Path, help="such as fastsse/native/frame.pxd")
    parser.add_argument("tests", nargs="+", help="files or folders")
    add_options(parser)
    parser.add_argument("--built", action="store_true", help="use what the last run compiled")
    given = parser.parse_args()
    text, changes = changed((ROOT / given.header).read_text("utf-8"))
    if not given.built:
        build(given.header, text)
    import_packages()
    chosen = part_of(given).of(changes)
    reasons, unnoticed = left(given.header), list[Change]()

    def survived(change: Change) -> None:
        reason = reasons.get(change.text)
        if reason is None:
            unnoticed.append(change)
        end = f" ({reason})" if reason else ""
        print(f"{given.header}:{change.line}: {change.text}{end}", flush=True)

    if not tried(chosen, given.tests, given.jobs, survived):
        parser.error("the tests fail without a change")
    print(f"{given.header}: {len(chosen)} changes, {len(unnoticed)} not noticed without a reason")
    return int(bool(unnoticed))


if __name__ == "__main__":
    sys.exit(main())
