"""Runs a Python block of a page as a program; `await` and `async with` may stand at the top."""

import ast
import asyncio
import sys
from types import CodeType
from typing import Any


def main(path: str) -> None:
    """Run it."""
    with open(path, encoding="utf-8") as file:
        code: CodeType = compile(file.read(), path, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names: dict[str, Any] = {"__name__": "__main__", "__file__": path}
    outcome = eval(code, names)
    if outcome is not None:
        asyncio.run(_until_done(outcome))


async def _until_done(outcome: Any) -> None:
    await outcome


if __name__ == "__main__":
    sys.path[0] = ""
    main(sys.argv[1])
