"""`python -m tests.mutants`: all modules of `modules.toml`, or one with tests of one's choice."""

import argparse
import ast
import os
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.mutants import loop
from tests.mutants.changes import changes
from tests.mutants.forks import ROOT, Module, survives
from tests.mutants.imports import import_before
from tests.mutants.part import Part, add_options, part_of
from tests.mutants.swaps import Swaps

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


@dataclass(frozen=True)
class Options:
    """Which changes are tried, and how many at a time."""

    part: Part
    jobs: int


def table() -> Iterator[tuple[Module, Mapping[str, str]]]:
    """The modules that are tried, each with the changes that can't be noticed and why."""
    for name, entry in tomllib.loads(TABLE.read_text("utf-8")).items():
        yield Module(Path(name), entry["tests"]), entry.get("left", {})


def tried(
    module: Module, left: Mapping[str, str], tell: Callable[[str], None], options: Options
) -> Result:
    """Tries each change of a module, or a part of them, and tells which no test noticed."""
    import_before(module)
    tree = ast.parse((ROOT / module.path).read_text("utf-8"))
    chosen = options.part.of(list(changes(tree)))
    result = Result(module, len(chosen))

    def survived(number: int) -> None:
        change = chosen[number]
        if change.text in left:
            result.explained += 1
            return
        result.unnoticed.append(change.text)
        tell(f"{module.path}:{change.lines[0][0]}: {change.text}")

    near = loop.tried(Swaps(module, chosen, tree), module.tests, options.jobs, survived)
    if near.fails:
        raise SystemExit(f"{module.path}: the tests fail without a change, or take too long")
    wide = Module(module.path, near.files or module.tests, module.limit_s)
    others = [one for one in near.untried if survives(wide, chosen[one].applied(tree))]
    for number in others:
        survived(number)
    survivors = {*near.survivors, *others}
    texts = {chosen[number].text for number in survivors}
    for text in sorted({one.text for one in chosen if one.text in left} - texts):
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
    add_options(parser)
    given = parser.parse_args()
    known = {module.path: (module, left) for module, left in table()}
    if given.module is not None and not given.tests and given.module not in known:
        parser.error(f"{given.module} is not in {TABLE.name}: name its tests")
    chosen = [known[path] for path in known if given.module in (None, path)]
    if given.tests:
        left = known[given.module][1] if given.module in known else {}
        chosen = [(Module(given.module, given.tests, given.limit), left)]
    options = Options(part_of(given), given.jobs)
    return int(not all([_is_noticed(module, left, options) for module, left in chosen]))


def _is_noticed(module: Module, left: Mapping[str, str], options: Options) -> bool:
    """Tries a module in a fork: what was imported for one can't be changed for the next."""
    child = os.fork()
    if child == 0:
        sys.exit(bool(tried(module, left, _print, options).unnoticed))
    return os.waitpid(child, 0)[1] == 0


def _print(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
