"""The installed package is the one that runs, in whatever folder: a clone named `fastsse/` lies
in the current folder, or is the current folder."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.commandline import environment

ROOT = Path(__file__).parent.parent
NOWHERE = "http://127.0.0.1:9"
# What is installed is the tree as it is, with the native part that was built; nothing is compiled.
_WITH_NATIVE_PART = '[tool.setuptools.package-data]\n"*" = ["*.so"]\n'


@dataclass
class Install:
    """A virtual environment with the package, and a clone named `fastsse`."""

    bin: Path
    above: Path

    @property
    def clone(self) -> Path:
        return self.above / "fastsse"

    def run(self, program: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        variables = environment()
        del variables["PYTHONPATH"]
        return subprocess.run(
            [self.bin / program, *arguments],
            cwd=cwd, env=variables, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip


@pytest.fixture(params=["wheel", "editable", "strict"])
def install(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Install]:
    found = Install(tmp_path / "env" / "bin", tmp_path / "above")
    ignored = shutil.ignore_patterns("*.pyx", "*.pxd", "*.c", "__pycache__")
    shutil.copytree(ROOT / "fastsse", found.clone / "fastsse", ignore=ignored)
    for name in ("README.md", "LICENSE"):
        shutil.copy(ROOT / name, found.clone)
    project = (ROOT / "pyproject.toml").read_text()
    project = project.replace("[tool.setuptools.package-data]\n", _WITH_NATIVE_PART)
    (found.clone / "pyproject.toml").write_text(project)
    venv.create(found.bin.parent, symlinks=True)
    site = next((found.bin.parent / "lib").glob("python*")) / "site-packages"
    (site / "dependencies.pth").write_text(
        "".join(f"{folder}\n" for folder in sys.path if folder.endswith("site-packages"))
    )
    how = {
        "wheel": (".",),
        "editable": ("-e", "."),
        "strict": ("-e", ".", "--config-settings", "editable_mode=strict"),
    }[request.param]
    quick = ("--no-deps", "--no-build-isolation", "--ignore-installed", "--no-compile")
    done = found.run("python", "-m", "pip", "install", "-q", *quick, *how, cwd=found.clone)
    assert done.returncode == 0, done.stderr
    if request.param == "wheel":  # As a clone is before it is built.
        for native in (found.clone / "fastsse").rglob("*.so"):
            native.unlink()
        shutil.rmtree(found.clone / "build", ignore_errors=True)
    yield found
    shutil.rmtree(tmp_path, ignore_errors=True)


def test_scripts_and_children_import_the_installed_package(install: Install) -> None:
    script = install.above / "app.py"
    script.write_text("import fastsse; print(fastsse.Config(port=0).port, fastsse.__file__)")
    done = install.run("python", str(script), cwd=install.above)
    assert done.stdout.startswith("0 "), done.stderr

    # The swarm's processes start, and find that nothing listens.
    for folder in (install.above, install.clone):
        done = install.run("fastsse", "swarm", NOWHERE, "-c", "2", "-d", "100ms", cwd=folder)
        assert "refused" in done.stdout, done.stderr
        assert done.stderr == ""

    # The doctor's measurement starts clients and a server.
    measure = "from fastsse.doctor.measure import server_bytes; print(server_bytes())"
    done = install.run("python", "-P", "-c", measure, cwd=install.clone)
    assert int(done.stdout) > 2**20, done.stderr

    assert asyncio.run(_serve_once(install)) == 0


async def _serve_once(install: Install) -> int | None:
    """Starts workers in the clone's folder and ends them; the exit status."""
    variables = environment()
    del variables["PYTHONPATH"]
    server = await asyncio.create_subprocess_exec(
        *(install.bin / "fastsse", "serve", "--port", "0", "--workers", "2"),
        cwd=install.clone, env=variables, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert server.stdout is not None
    try:
        async with asyncio.timeout(60):
            said = b""
            while b"is serving" not in said:
                line = await server.stdout.readline()
                assert line, said
                said += line
            server.send_signal(signal.SIGTERM)
            await server.communicate()
    finally:
        if server.returncode is None:
            server.kill()
            await server.communicate()
    return server.returncode


def test_python_m_in_an_unbuilt_clone_says_what_to_do(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(ROOT / "fastsse", tmp_path / "fastsse", ignore=ignored)
    done = subprocess.run(
        [sys.executable, "-S", "-m", "fastsse", "--version"],
        cwd=tmp_path, env=environment(PYTHONPATH=os.devnull), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "make serve" in done.stderr
    assert "Traceback" not in done.stderr
