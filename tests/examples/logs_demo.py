"""The programs of `examples/logs`, as a module."""

import importlib.util
import pathlib
from typing import Any

# On a busy machine Java needs more than the minute that a user waits.
_START_S = 300
EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "logs"


def demo() -> Any:
    """Its `demo.py`."""
    found = importlib.util.spec_from_file_location("logs_demo", EXAMPLE / "demo.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    module.START_S = _START_S
    return module
