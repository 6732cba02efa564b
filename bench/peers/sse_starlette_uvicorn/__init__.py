"""sse-starlette on uvicorn, with uvloop and httptools."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.peers.peer import PYTHON_PACKAGES, Peer, lacks_modules, versions_of


def _command(directory: Path) -> list[str]:
    return [sys.executable, "-m", "bench.peers.sse_starlette_uvicorn.server"]


PEER = Peer(
    name="sse-starlette",
    title="sse-starlette, uvicorn",
    command=_command,
    install=PYTHON_PACKAGES,
    settings="uvloop and httptools, no access log, backlog 4096, a queue a client, no middleware",
    missing=lacks_modules("sse_starlette", "uvicorn", "uvloop", "httptools"),
    versions=versions_of("sse-starlette", "starlette", "uvicorn", "uvloop", "httptools"),
)
