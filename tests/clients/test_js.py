"""The JavaScript client's own tests, in Node, each file by itself."""

from pathlib import Path

import pytest

from tests.clients.javascript import MODULES, PACKAGE, copy_of_package, run

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
