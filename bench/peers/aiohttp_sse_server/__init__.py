"""aiohttp-sse on aiohttp's own server and uvloop."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.peers.peer import PYTHON_PACKAGES, Peer, lacks_modules, versions_of


def _command(directory: Path) -> list[str]:
    return [sys.executable, "-m", "bench.peers.aiohttp_sse_server.server"]


PEER = Peer(
    name="aiohttp-sse",
    title="aiohttp-sse",
    command=_command,
    install=PYTHON_PACKAGES,
    settings="uvloop, no access log, backlog 4096, a queue a client, its own C parser and writer",
    missing=lacks_modules("aiohttp", "aiohttp_sse", "uvloop"),
    versions=versions_of("aiohttp-sse", "aiohttp", "uvloop"),
)
