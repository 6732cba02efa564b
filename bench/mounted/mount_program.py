"""`python -m bench.mounted.mount_program`: streams on the port of an application that has no other
work."""

from __future__ import annotations

from typing import Any

import fastsse
from bench.peers.uvicorn_settings import serve

_EMPTY = {"type": "http.response.start", "status": 204, "headers": []}


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers with 204."""
    await send(_EMPTY)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def grants_of(scope: Any) -> fastsse.Grants:
    """Every client may publish."""
    return fastsse.Grants(publish=["*"])


if __name__ == "__main__":
    serve(fastsse.mount(application, "/events", authorize=grants_of))
