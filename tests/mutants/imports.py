"""What is imported once, before the forks: packages, and our modules that do not use the changed
one."""

import ast
import gc
import importlib
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Final

from tests.mutants.forks import ROOT, Module

_PACKAGES: Final = (
    "hypothesis", "pytest_asyncio", "uvloop", "httptools", "orjson", "pydantic",
    "cryptography.x509", "structlog", "prometheus_client", "click",
    "rich.console", "httpx", "redis.asyncio", "jwt",
)  # fmt: skip
_OUR_PLUGIN: Final = "fastsse.testing.plugin"


def import_before(module: Module) -> None:
    """Raises SystemExit if the module itself was imported: its changes would have no effect."""
    import_packages()
    users = _graph()
    using, found = {module.name}, {module.name}
    while found:
        found = {name for name, used in users.items() if used & found} - using
        using |= found
    for name in sorted(set(users) - using):
        if not name.startswith("fastsse.contrib"):
            importlib.import_module(name)
    # No fork looks for garbage in what all of them have.
    gc.collect()
    gc.freeze()
    if module.name in sys.modules:
        raise SystemExit(f"{module.name} was imported before its first change")


def import_packages() -> None:
    """Those of others."""
    plugins = {point.module for point in entry_points(group="pytest11")}
    for name in (*_PACKAGES, *sorted(plugins - {_OUR_PLUGIN})):
        importlib.import_module(name)


def _graph() -> dict[str, set[str]]:
    """Of each module of ours, what it imports; a package imports nothing that its module does not
    name, and everything in it needs it."""
    found = {}
    for path in sorted((ROOT / "fastsse").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        names = set(_imported(ast.parse(path.read_bytes())))
        found[name] = {part for one in names for part in _with_parents(one)}
        found[name] |= set(_with_parents(name)) - {name}
    return found


def _imported(node: ast.AST) -> Iterator[str]:
    """Outside of functions, which import when they are called."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            yield child.module
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not _for_types(
            child
        ):
            yield from _imported(child)


def _for_types(node: ast.AST) -> bool:
    match node:
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
    return False


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[: count + 1]) for count in range(len(parts)))
