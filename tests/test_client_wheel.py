"""The package fastsse-client: no native code, no part of the server, on any system."""

import ast
import asyncio
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

from fastsse import Config, Server

ROOT = Path(__file__).parent.parent
PARTS: list[str] = runpy.run_path(str(ROOT / "deploy/client_wheel.py"))["PARTS"]
PROGRAM = """
import sys
import httpx, orjson
sys.platform = "darwin"
for name in ("uvloop", "httptools", "pydantic", "structlog"):
    sys.modules[name] = None
import fastsse
from fastsse.client import Client, Outbox
assert fastsse.__file__.startswith(sys.argv[1]), fastsse.__file__
Outbox().close()
with Client(sys.argv[2]) as client:
    receipt = client.publish("news", {"n": 1}, event="tick")
    with client.subscribe("news", last=1) as events:
        event = next(events)
        assert (event.json(), event.event, event.id) == ({"n": 1}, "tick", receipt.id)
assert not [name for name in sys.modules if name.startswith("fastsse._")]
try:
    fastsse.Server
except ImportError as error:
    print(error)
"""


def unpacked(folder: Path) -> Path:
    """Builds the wheel with the command that the documentation names."""
    command = (sys.executable, ROOT / "deploy/client_wheel.py", folder)
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("fastsse_client-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def imported(path: Path) -> set[str]:
    """The modules of ours that a file imports when it is imported."""
    tree = ast.parse(path.read_text())
    found = {node.module for node in tree.body if isinstance(node, ast.ImportFrom) and node.module}
    return {name for name in found if name.startswith("fastsse.")}


def test_client_wheel_has_all_that_its_files_import() -> None:
    parts = [ROOT / "fastsse" / part for part in PARTS]
    files = [file for part in parts for file in (part.rglob("*.py") if part.is_dir() else [part])]
    assert len(files) > 20
    has = {part.removesuffix(".py") for part in PARTS}
    missing = {name for file in files for name in imported(file) if name.split(".")[1] not in has}
    assert not missing


async def test_client_wheel_works_without_the_core(tmp_path: Path) -> None:
    site = await asyncio.to_thread(unpacked, tmp_path)
    assert {path.suffix for path in site.rglob("*")}.isdisjoint({".so", ".pyx", ".c"})
    async with Server(Config(port=0, drain=0)) as server:
        done = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, str(site), server.addresses[0]),
            cwd=tmp_path,
            env={"PYTHONPATH": str(site)},
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            said, _ = await done.communicate()
    assert done.returncode == 0
    assert said.decode().strip() == "fastsse.Server needs the package fastsse, not fastsse-client"
