"""Runs a module of this package as a program, in a process of its own.

`python -m` searches the current folder first. In a folder that holds another `fastsse/`, such as
a clone of the sources, the child would import that one. So the child runs this file, which takes
the package from the folder that it lies in; `-P` keeps every other search off the current folder.
"""

import importlib.util
import os
import runpy
import sys

__all__ = ["module_command"]


def module_command(module: str, *arguments: str) -> list[str]:
    """The command of a process that runs `module` of this very package.

    Arguments:
        module: its full name, such as `fastsse.swarm.leader`; `fastsse` is the command line.
        arguments: what the module finds in `sys.argv[1:]`.
    """
    return [sys.executable, "-P", os.path.abspath(__file__), module, *arguments]


def _run() -> None:
    """The child: imports the package of this folder, with any search path."""
    folder = os.path.dirname(os.path.abspath(__file__))
    spec = importlib.util.spec_from_file_location(
        "fastsse", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    assert spec is not None
    assert spec.loader is not None
    package = sys.modules["fastsse"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    module = sys.argv.pop(1)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _run()
