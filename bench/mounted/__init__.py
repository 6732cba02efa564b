"""`python -m bench.mounted`: fastsse inside an ASGI application, next to other ways to do that."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.peers import django_eventstream_asgi, own, sse_starlette_uvicorn
from bench.peers.peer import PYTHON_PACKAGES, Peer, lacks_modules, versions_of

__all__ = ["MOUNT", "PEERS"]


def _mount(directory: Path) -> list[str]:
    return [sys.executable, "-m", "bench.mounted.mount_program"]


MOUNT = Peer(
    name="mount",
    title="fastsse.mount, uvicorn",
    command=_mount,
    install=PYTHON_PACKAGES,
    settings="uvloop and httptools, no access log; defaults of fastsse",
    missing=lacks_modules("uvicorn"),
    versions=versions_of("fastsse", "uvicorn", "uvloop", "httptools"),
)
PEERS = (own.PEER, MOUNT, sse_starlette_uvicorn.PEER, django_eventstream_asgi.UVICORN)
