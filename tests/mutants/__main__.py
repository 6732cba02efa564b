"""`python -m tests.mutants`: all modules of `modules.toml`, or one with tests of one's choice."""

import argparse
import ast
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.mutants.changes import changes
from tests.mutants.forks import ROOT, Module, reached, survives
from tests.mutants.imports import import_before

TABLE: Final = Path(__file__).with_name("modules.toml")


@dataclass
class Result:
    """What came of a module: changes that no test noticed, and those of them with a reason."""

    module: Module
    tried: int = 0
    unnoticed: list[str] = field(default_factory=list)
    explained: int = 0

    def __str__(self) -> str:
        count = len(self.unnoticed)
        line = f"{self.module.path}: {self.tried} changes, {count + self.explained} not noticed"
        return f"{line}, {self.explained} of them with a reason" if self.explained else line


def table() -> Iterator[tuple[Module, Mapping[str, str]]]:
    """The modules that are tried, each with the changes that can't be noticed and why."""
    for name, entry in tomllib.loads(TABLE.read_text("utf-8")).items():
        yield Module(Path(name), entry["tests"]), entry.get("left", {})


def tried(
    module: Module,
    left: Mapping[str, str],
    tell: Callable[[str], None],
    part: slice = slice(None),
) -> Result:
    """Tries each change of a module, or a part of them, and tells which no test noticed."""
    import_before(module)
    tree = ast.parse((ROOT / module.path).read_text("utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        lines = reached(module, tree, Path(folder))
    if lines is None:
        raise SystemExit(f"{module.path}: the tests fail without a change, or take too long")
    wide = Module(module.path, lines.files() or module.tests, module.limit_s)
    result = Result(module)
    noticed = []
    for change in list(changes(tree))[part]:
        result.tried += 1
        changed = change.applied(tree)
        near = lines.tests_of(change.lines)
        # Those that reach the line are quick; what they let pass, the others may see.
        if (near and not survives(module, changed, near)) or not survives(wide, changed):
            noticed.append(change.text)
            continue
        if change.text in left:
            result.explained += 1
            continue
        result.unnoticed.append(change.text)
        tell(f"{module.path}:{change.lines[0][0]}: {change.text}")
    for text in sorted(set(left) & set(noticed)):
        tell(f"{module.path}: {text}: has a reason in {TABLE.name}, and is noticed")
    tell(str(result))
    return result


def main() -> int:
    """1 if a change was not noticed and has no reason."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("module", nargs="?", type=Path, help="such as fastsse/auth/claims.py")
    parser.add_argument("tests", nargs="*", help="files or folders; else those of modules.toml")
    parser.add_argument(
        "--limit", type=int, default=20, metavar="SECONDS", help="of processor time for each run"
    )
    parser.add_argument("--most", type=int, metavar="COUNT", help="only so many changes")
    parser.add_argument(
        "--skip", type=int, default=0, metavar="COUNT", help="leave the first changes out"
    )
    given = parser.parse_args()
    known = {module.path: (module, left) for module, left in table()}
    if given.module is not None and not given.tests and given.module not in known:
        parser.error(f"{given.module} is not in {TABLE.name}: name its tests")
    chosen = [known[path] for path in known if given.module in (None, path)]
    if given.tests:
        left = known[given.module][1] if given.module in known else {}
        chosen = [(Module(given.module, given.tests, given.limit), left)]
    end = None if given.most is None else given.skip + given.most
    part = slice(given.skip, end)
    results = [tried(module, left, _print, part) for module, left in chosen]
    return int(any(result.unnoticed for result in results))


def _print(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
