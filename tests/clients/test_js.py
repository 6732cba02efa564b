"""The JavaScript client: its own tests in Node, its types, its package, the served copy."""

import gzip
import json
from pathlib import Path

import pytest

from fastsse.version import __version__
from tests.clients.javascript import MODULES, PACKAGE, ROOT, copy_of_package, node, run

SERVED = ROOT / "fastsse" / "api" / "client"
CORE_BYTES_MAX = 6 * 1024
FILES = sorted(path.name for path in (PACKAGE / "test").glob("*.test.mjs"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    package = copy_of_package(tmp_path_factory.mktemp("js"))
    run("build.mjs", "--out", "dist", cwd=package)
    return package


@pytest.mark.parametrize("name", FILES)
def test_javascript_client_passes(built: Path, name: str) -> None:
    run("--test", f"test/{name}", cwd=built)


def test_javascript_client_has_no_type_errors(built: Path) -> None:
    run(MODULES / "typescript" / "bin" / "tsc", "--noEmit", "-p", ".", cwd=built)


def test_the_declared_types_allow_what_is_meant_and_refuse_the_rest(built: Path) -> None:
    run("build.mjs", "--out", "dist", "--types", cwd=built)
    words = (
        "--strict",
        "--target",
        "es2022",
        "--module",
        "es2022",
        "--moduleResolution",
        "bundler",
    )
    tsc = MODULES / "typescript" / "bin" / "tsc"
    run(tsc, "--ignoreConfig", "--noEmit", *words, "--skipLibCheck", "test/types.ts", cwd=built)


def test_what_the_server_sends_is_built_from_the_source(built: Path, tmp_path: Path) -> None:
    run("build.mjs", "--served", tmp_path, cwd=built)
    assert sorted(path.name for path in SERVED.iterdir()) == sorted(
        path.name for path in tmp_path.iterdir()
    )
    for path in SERVED.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), "run `make client-js`"


def test_the_core_takes_at_most_six_kilobytes_compressed() -> None:
    assert len(gzip.compress((SERVED / "index.js").read_bytes(), 9)) <= CORE_BYTES_MAX


def test_the_npm_package_has_each_entry_with_its_types_and_nothing_else(built: Path) -> None:
    run("build.mjs", "--out", "dist", "--types", cwd=built)
    npm = (
        Path(node()).resolve().parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    )
    if not npm.exists():
        pytest.skip("this Node has no npm")
    (packed,) = json.loads(run(npm, "pack", "--dry-run", "--json", "--ignore-scripts", cwd=built))
    files = {entry["path"] for entry in packed["files"]}
    manifest = json.loads((built / "package.json").read_text())
    assert packed["version"] == manifest["version"] == __version__
    named = {
        path.removeprefix("./")
        for entry in manifest["exports"].values()
        if isinstance(entry, dict)
        for path in entry.values()
    }
    assert named <= files
    others = {path for path in files if not path.startswith("dist/")}
    assert others == {"package.json", "README.md", "LICENSE"}
    assert all(path.endswith((".js", ".d.ts")) for path in files - others)
