"""What the programs of these tests share: who may, and the options."""

import os
from typing import Any

import fastsse

CONFIG = fastsse.Config(drain=0.2, retry=0.1)
HUB_SOCKET = os.environ.get("TEST_HUB_SOCKET")


def grants_of(scope: Any) -> list[str] | None:
    """The cookie is the user; without one nothing is served."""
    user = dict(scope["headers"]).get(b"cookie", b"").decode()
    return [f"user/{user}"] if user else None


def mounted(app: Any) -> fastsse.Mount:
    return fastsse.mount(app, "/events", authorize=grants_of, config=CONFIG, hub_socket=HUB_SOCKET)


def counts(mount: fastsse.Mount) -> dict[str, Any]:
    return {"streams": mount.stream_count, "pid": os.getpid(), **mount.counters()}
