"""The source distribution and the wheel: built twice they are the same. The wheel is portable, and
serves in an environment without a compiler."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
_TIME = "1700000000"
# What a source distribution is made from, and what Cython made of it for this tree.
_PARTS = ("fastsse", "deploy", "build/cython", "setup.py", "pyproject.toml", "MANIFEST.in")
_TEXTS = ("README.md", "LICENSE", "CHANGELOG.md")


def build(source: Path, folder: Path) -> Path:
    """A wheel of these sources, with the packages that are installed here."""
    words = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    variables = {**os.environ, "SOURCE_DATE_EPOCH": _TIME}
    subprocess.run([*words, "-w", folder, source], check=True, env=variables, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def copy_of_the_tree(folder: Path) -> Path:
    """So that no change of the tree meanwhile, nor a build in it, is in the second one alone."""
    for name in (*_PARTS, *_TEXTS):
        path = ROOT / name
        if path.is_dir():
            ignored = shutil.ignore_patterns("*.so", "__pycache__")
            shutil.copytree(path, folder / name, ignore=ignored)
        elif path.exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, folder / name)
    return folder


def source_distribution(tree: Path, folder: Path) -> Path:
    words = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "-o", folder, tree]
    variables = {**os.environ, "SOURCE_DATE_EPOCH": _TIME}
    subprocess.run(words, check=True, capture_output=True, env=variables)
    (found,) = folder.glob("*.tar.gz")
    return found


def unpacked(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    (found,) = folder.iterdir()
    return found


@pytest.mark.timeout(1800)
def test_wheel_is_portable_the_same_twice_and_serves_without_a_compiler(tmp_path: Path) -> None:
    pytest.importorskip("auditwheel")
    tree = copy_of_the_tree(tmp_path / "tree")
    archive = source_distribution(tree, tmp_path / "sdist")
    again = source_distribution(tree, tmp_path / "again")
    assert archive.read_bytes() == again.read_bytes()
    # One folder after the other: each has the same path, which the compiler may write down.
    wheels = []
    for name in ("first", "second"):
        source = unpacked(archive, tmp_path / "source")
        assert not list(source.rglob("*.c")), "a generated file is in the source distribution"
        wheels.append(build(source, tmp_path / name))
        source.rename(tmp_path / f"{name}-source")
    assert "-linux_" in wheels[0].name, "nothing native is in the wheel"
    hashes = {hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels}
    assert len(hashes) == 1

    tools = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    repair = [sys.executable, "-m", "auditwheel", "repair", "-w", tmp_path / "dist", wheels[0]]
    subprocess.run(repair, check=True, capture_output=True, env={**os.environ, "PATH": tools})
    (portable,) = (tmp_path / "dist").glob("*-manylinux_*.whl")

    program = installed(portable, tmp_path / "env")
    done = subprocess.run(
        [program, ROOT / "deploy" / "try_wheel.py"],
        cwd=tmp_path, env={"PATH": os.devnull}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "env") in done.stdout
    for name in ("man/man1/fastsse-serve.1", "bash-completion/completions/fastsse"):
        assert (tmp_path / "env" / "share" / name).is_file(), f"{name} is not installed"


def installed(wheel: Path, folder: Path) -> Path:
    """The Python of a new environment with the wheel; its dependencies are those from here."""
    venv.create(folder, symlinks=True)
    site = next((folder / "lib").glob("python*")) / "site-packages"
    program = folder / "bin" / "python"
    others = [path for path in sys.path if path.endswith("site-packages")]
    (site / "dependencies.pth").write_text("".join(f"{path}\n" for path in others))
    words = [program, "-m", "pip", "install", "-q", "--no-deps", "--ignore-installed", wheel]
    subprocess.run(words, check=True, capture_output=True)
    return program
