"""`python -m bench.mounted`: fastsse inside an ASGI application, next to other ways to do that."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.peers import own, sse_starlette_uvicorn
from bench.peers.peer import PYTHON_PACKAGES, Peer, lacks_modules, versions_of

__all__ = ["DJANGO_EVENTSTREAM", "MOUNT", "PEERS"]


def _mount(directory: Path) -> list[str]:
    return [sys.executable, "-m", "bench.mounted.mount_program"]


def _django_eventstream(directory: Path) -> list[str]:
    return [sys.executable, "-m", "bench.mounted.django_program"]


MOUNT = Peer(
    name="mount",
    title="fastsse.mount, uvicorn",
    command=_mount,
    install=PYTHON_PACKAGES,
    settings="uvloop and httptools, no access log; defaults of fastsse",
    missing=lacks_modules("uvicorn"),
    versions=versions_of("fastsse", "uvicorn", "uvloop", "httptools"),
)
DJANGO_EVENTSTREAM = Peer(
    name="django-eventstream",
    title="django-eventstream, uvicorn",
    command=_django_eventstream,
    install=PYTHON_PACKAGES,
    settings="the same uvicorn; no storage, no middleware",
    missing=lacks_modules("uvicorn", "django", "django_eventstream"),
    versions=versions_of("django", "django-eventstream", "uvicorn"),
)
PEERS = (own.PEER, MOUNT, sse_starlette_uvicorn.PEER, DJANGO_EVENTSTREAM)
