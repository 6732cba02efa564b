"""How uvicorn is run for the two peers on it."""

from __future__ import annotations

import uvicorn
from starlette.types import ASGIApp

from bench.peers.topics import BACKLOG, listen


def serve(app: ASGIApp) -> None:
    """Serves on a free port until SIGTERM.

    uvicorn's settings page calls uvloop and httptools the faster choices, and switching the access
    log off and the log level down spares a line a request. One worker: workers share nothing, so
    that a broadcast in memory reaches the clients of one process only (and one core is all that a
    server has in this comparison).
    """
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        backlog=BACKLOG,
        # Streams never end by themselves: without it a stop would wait for all of them.
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run(sockets=[listen()])
