"""Promises about the project itself: which way dependencies point, what the wheel needs."""

import ast
import functools
import graphlib
import os
import pathlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Collection

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "fastsse"
# From the ground up: a room may lean on its own floor and on those below it.
FLOORS = [
    {
        "version",
        "errors",
        "backoff",
        "units",
        "stamp",
        "_core",
        "_connections",
        "_door",
        "_seal",
        "_keys",
        "_positions",
        "facts",
        "limits",
        "jwtkeys",
        "auth.roca",
        "cgroups",
        "checks",
        "directives",
        "evicted",
        "expressions.parser",
        "expressions.tokens",
        "expressions.tree",
        "expressions.errors",
        "eventstream",
        "schemas",
        "jsontext",
        "journal",
        "meta",
        "paging",
        "programs",
        "refusal_reasons",
        "roots",
        "streamoffsets",
        "streamstate",
        "stacks",
        "trails",
    },
    {"config", "log", "positions", "reserved", "selectors", "client"},
    {"events", "subscriptions", "metrics", "minting", "spans"},
    {
        "entries",
        "_records",
        "_batch",
        "_appends",
        "_commit",
        "_ndjson",
        "_mapping",
        "expressions",
        "_intake",
        "interceptors",
        "_content",
    },
    {"redis", "handlers", "outbound", "tracing"},
    {"control"},
    {"auth", "wakes", "hooks"},
    {"services"},
    {"backbone"},
    {"cluster"},
    {"sources", "stores"},
    {"sinks", "rules"},
    {"http"},
    {"hub", "_hub"},
    {"bus"},
    {"streams"},
    {"api"},
    {"vitals"},
    {"worker"},
    {"swarm", "doctor", "proxyconfig"},
    {"supervisor"},
    {"server"},
    {"asgi"},
    {"testing", "contrib"},
    {"cli"},
    {"__main__"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


@functools.cache
def parsed(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text())


def room_of(module: str) -> str | None:
    """The room of a module: `fastsse.http.cors` is in `http`; None for what is not ours."""
    parts = module.split(".")
    if parts[0] != "fastsse" or len(parts) == 1:
        return None
    inner = ".".join(parts[1:3])
    return inner if inner in FLOOR_OF else parts[1]


def imports(path: pathlib.Path) -> set[str]:
    """The rooms that a file takes something from."""
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {room for name in names if (room := room_of(name))}
        elif isinstance(node, ast.Import):
            found |= {room for alias in node.names if (room := room_of(alias.name))}
    return found & FLOOR_OF.keys()


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def test_no_function_is_longer_than_60_lines() -> None:
    long = [
        f"{path.relative_to(PACKAGE)}: {node.name} has {lines} lines"
        for path in FILES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > 60
    ]
    assert not long


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_dependencies_point_one_way(path: pathlib.Path) -> None:
    inside = path.relative_to(PACKAGE).with_suffix("").parts
    room = room_of(".".join(("fastsse", *inside)))
    if inside[-1] == "__init__":
        room = inside[0]
    assert room in FLOOR_OF, "a new room needs a floor"
    above = {other for other in imports(path) if FLOOR_OF[other] > FLOOR_OF[room]}
    assert not above, f"{room} leans on {above}, which stands above it"


def test_no_part_of_the_server_imports_a_tool() -> None:
    tools = {"swarm", "doctor", "client", "proxyconfig", "contrib"}
    for path in FILES:
        room = path.relative_to(PACKAGE).parts[0]
        if room not in tools | {"cli"}:
            assert not imports(path) & tools, f"{path.name} imports a tool"
        elif room in tools:
            outside = (
                imports(path) - {room} - ({"client"} if room in ("doctor", "contrib") else set())
            )
            assert outside <= FLOORS[0], f"{path.name} imports {outside} of the server"


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    modules = {module_of(path): path for path in FILES}
    graph = {name: modules_of(path, modules.keys()) for name, path in modules.items()}
    graphlib.TopologicalSorter(graph).prepare()


def module_of(path: pathlib.Path) -> str:
    inside = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(inside[:-1] if inside[-1] == "__init__" else inside)


def modules_of(path: pathlib.Path, modules: Collection[str]) -> set[str]:
    """Which of the modules a file imports when it is loaded; types alone make no circle."""
    found: set[str] = set()
    for node in parsed(path).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in modules else node.module)
    own = module_of(path)
    return {name for name in found if name in modules and not f"{own}.".startswith(f"{name}.")}


def test_only_channels_streams_and_the_worker_take_the_sender() -> None:
    """`channels`, `replayer`, `streams` and `tails` command it, `hub` asks it how it is, the worker
    makes it."""
    users = {
        str(path.relative_to(PACKAGE))
        for path in FILES
        if any(
            isinstance(node, ast.ImportFrom)
            and node.module == "fastsse._core"
            and any(alias.name == "Sender" for alias in node.names)
            for node in ast.walk(parsed(path))
        )
    }
    commanding = {"hub/channels.py", "hub/resume/replayer.py", "hub/streams.py", "hub/tails.py"}
    assert users <= commanding | {"hub/hub.py", "worker.py"}


def test_every_file_that_the_documents_name_is_there() -> None:
    for document in ROOT.glob("*.md"):
        for name in re.findall(
            r"[`(]((?:tests|bench|loadtests|fastsse|deploy)/[\w./-]+)[`)]", document.read_text()
        ):
            assert (ROOT / name).exists(), f"{document.name} names {name}"


def test_every_function_that_the_architecture_names_is_there() -> None:
    """It names them as `file:name`, files of the package without its folder."""
    for document in (ROOT / "ARCHITECTURE.md", *ROOT.glob("docs/design/*.md")):
        names = re.findall(r"`([\w/]+\.(?:py|pyx|pxd)):([\w.]+)`", document.read_text())
        for file, name in names:
            path = ROOT / file if file.startswith("tests/") else PACKAGE / file
            assert path.is_file(), f"{document.name} names {file}"
            for part in name.split("."):
                defined = rf"^ *(?:async )?(?:def|class|cdef [\w *]*?)\b *\*?{part}\b"
                assert re.search(defined, path.read_text(), re.MULTILINE), f"{file} has no {name}"


def test_every_room_stands_in_the_architectures_table() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    known = set(re.findall(r"`([\w/]+?)(?:\.pyx?|/)?`", text))
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    for folder in ("api", "http", "hub", "hub/resume", "control", "cluster"):
        rooms |= {path.stem for path in (PACKAGE / folder).glob("*.py")}
    unnamed = {room for room in rooms if not room.startswith("_")} - known
    assert not unnamed, f"ARCHITECTURE.md does not name {unnamed}"


def test_another_system_gets_a_message_that_says_what_to_do() -> None:
    program = "import sys; sys.platform = 'darwin'; exec(open('setup.py').read())"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "fastsse needs Linux (epoll); use Docker or WSL2"


@pytest.mark.timeout(300)
def test_the_wheel_runs_without_cython_and_a_compiler(tmp_path: pathlib.Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-w", tmp_path, ROOT], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("fastsse-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert not [name for name in names if name.endswith((".pyx", ".pxd", ".c"))]
    assert {
        "fastsse/py.typed",
        "fastsse/_core.pyi",
        "fastsse/swarm/_swarm.pyi",
        "fastsse/api/page/index.html",
        "fastsse/api/page/app.js",
        "fastsse/backbone/redis/append.lua",
        "fastsse/cluster/beat.lua",
        "fastsse/proxyconfig/Caddyfile",
    } <= set(names)
    program = (
        "import sys; sys.modules['Cython'] = None; import fastsse;"
        "from fastsse.cli import main; print(fastsse.__file__);"
        "sys.argv[1:] = ['--version']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": os.devnull},
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(tmp_path) in done.stdout
    assert "fastsse 0." in done.stdout


#: Values with a field for each argument, the client's public interface, and one that others change.
MANY_ARGUMENTS = {
    "AsyncClient",
    "Event",
    "Listener",
    "ListenerContext",
    "Publisher",
    "Rights",
}


def test_a_constructor_takes_at_most_six_arguments() -> None:
    """More become one frozen options object."""
    for path in FILES:
        for part in ast.walk(parsed(path)):
            if isinstance(part, ast.ClassDef) and part.name not in MANY_ARGUMENTS:
                for one in part.body:
                    if isinstance(one, ast.FunctionDef) and one.name == "__init__":
                        count = len(one.args.args) + len(one.args.kwonlyargs) - 1
                        assert count <= 6, f"{part.name} takes {count}"
