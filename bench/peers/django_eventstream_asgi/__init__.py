"""django-eventstream, on uvicorn and on Daphne, the server that its README names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from bench.peers.peer import PYTHON_PACKAGES, Peer, lacks_modules, versions_of

_DJANGO = ("django", "django_eventstream")


def _command(server: str) -> Callable[[Path], list[str]]:
    module = "bench.peers.django_eventstream_asgi.server"
    return lambda directory: [sys.executable, "-m", module, server]


UVICORN = Peer(
    name="django-eventstream",
    title="django-eventstream, uvicorn",
    command=_command("uvicorn"),
    install=PYTHON_PACKAGES,
    settings="the same uvicorn; no storage, no middleware; it keeps 10 events for a slow client",
    missing=lacks_modules("uvicorn", "uvloop", "httptools", *_DJANGO),
    versions=versions_of("django", "django-eventstream", "uvicorn"),
)
DAPHNE = Peer(
    name="django-eventstream-daphne",
    title="django-eventstream, Daphne",
    command=_command("daphne"),
    install=PYTHON_PACKAGES,
    settings="Daphne on asyncio, no access log; no storage, no middleware",
    missing=lacks_modules("daphne", *_DJANGO),
    versions=versions_of("django", "django-eventstream", "daphne"),
)
