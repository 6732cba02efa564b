"""What this build is made of and runs on: for `--version`, the logs and `fastsse_build_info`."""

import importlib.metadata
import platform
from functools import cache

from fastsse.version import __version__

UNKNOWN = "unknown"
NOT_BUILT = "core not built"


def build_facts() -> dict[str, str]:
    """Names and versions, in the order to show them. Loads the native core."""
    return {
        "version": __version__,
        **_core_facts(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "uvloop": _installed("uvloop"),
        "httptools": _installed("httptools"),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def _core_facts() -> dict[str, str]:
    """What the core says of its own build: the running machine may have neither tool."""
    try:
        from fastsse import _core
    except ImportError:
        return {"cython": NOT_BUILT, "compiler": NOT_BUILT}
    facts = {name: fact for name, fact in _core.build_facts().items() if fact}
    compiler = facts.get("compiler", UNKNOWN)
    # GCC's own version text is a bare number, Clang's begins with its name.
    return {**facts, "compiler": f"GCC {compiler}" if compiler[0].isdigit() else compiler}


@cache
def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return UNKNOWN
