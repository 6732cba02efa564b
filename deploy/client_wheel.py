"""Builds `fastsse-client`, the clients alone: `python deploy/client_wheel.py [FOLDER]`.

The wheel has the same files under the same names as the package fastsse, without what needs a
compiler or Linux: `fastsse.client` and `fastsse.contrib`. A program needs one of the two packages.
"""

import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
#: Files and folders of `fastsse/` in the wheel.
PARTS: Final = (
    "__init__.py",
    "py.typed",
    "version.py",
    "errors.py",
    "eventstream.py",
    "refusal_reasons.py",
    "client",
    "contrib",
)
#: What they import, by the names in pyproject.toml.
NEEDED: Final = ("httpx", "orjson")

PROJECT: Final = """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "fastsse-client"
description = "Clients for fastsse, a Server-Sent-Events server: async and sync"
requires-python = ">=3.11"
license = "MIT"
dynamic = ["version"]
dependencies = [{needed}]

[project.optional-dependencies]
django = ["django>=5.2", "pyjwt>=2.13"]
mcp = ["mcp>=2.3"]

[tool.setuptools]
include-package-data = false

[tool.setuptools.packages.find]
include = ["fastsse", "fastsse.*"]

[tool.setuptools.package-data]
fastsse = ["py.typed"]

[tool.setuptools.dynamic]
version = {{ attr = "fastsse.version.__version__" }}
"""


def dependencies(project: str) -> list[str]:
    """The requirements in pyproject.toml of what the clients need."""
    listed: list[str] = tomllib.loads(project)["project"]["dependencies"]
    return [one for one in listed if one.startswith(NEEDED)]


def build(folder: Path) -> Path:
    """Builds the wheel into a folder; returns its path. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as name:
        source = Path(name)
        package = source / "fastsse"
        package.mkdir()
        for part in PARTS:
            copied = ROOT / "fastsse" / part
            if copied.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(copied, package / part, ignore=ignored)
            else:
                shutil.copy(copied, package / part)
        needed = dependencies((ROOT / "pyproject.toml").read_text("utf-8"))
        text = PROJECT.format(needed=", ".join(f'"{one}"' for one in needed))
        (source / "pyproject.toml").write_text(text, "utf-8")
        pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation")
        subprocess.run((*pip, "-w", folder, source), check=True)
    (wheel,) = folder.glob("fastsse_client-*.whl")
    return wheel


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist"
    target.mkdir(parents=True, exist_ok=True)
    print(build(target))
