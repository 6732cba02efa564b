"""FastAPI's own server-sent events (`fastapi.sse`) on uvicorn, with uvloop and httptools."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from bench.peers.peer import PYTHON_PACKAGES, Peer, lacks_modules, versions_of


def _command(directory: Path) -> list[str]:
    return [sys.executable, "-m", "bench.peers.fastapi_uvicorn.server"]


def _lacks() -> str:
    missing = lacks_modules("fastapi", "uvicorn", "uvloop", "httptools")()
    if not missing and find_spec("fastapi.sse") is None:
        return "fastapi >= 0.135 (fastapi.sse)"
    return missing


PEER = Peer(
    name="fastapi",
    title="FastAPI's own SSE, uvicorn",
    command=_command,
    install=PYTHON_PACKAGES,
    settings="uvloop and httptools, no access log, backlog 4096, a queue a client, `raw_data`",
    missing=_lacks,
    versions=versions_of("fastapi", "starlette", "uvicorn", "uvloop", "httptools"),
)
