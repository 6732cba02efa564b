"""All peers, in the order of the table; ours first, because the others are given as multiples."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.peers import (
    aiohttp_sse_server,
    better_sse,
    centrifugo,
    django_eventstream_asgi,
    fastapi_uvicorn,
    gin,
    mercure,
    nchan,
    own,
    sse_starlette_uvicorn,
)
from bench.peers.peer import PYTHON_PACKAGES, Peer, lacks_modules, versions_of


def _bare_uvloop(directory: Path) -> list[str]:
    return [sys.executable, "-m", "bench.peers.bare_uvloop"]


# A module and not a folder: the swarm's tests start it too.
BARE_UVLOOP = Peer(
    name="bare-uvloop",
    title="bare uvloop protocol",
    command=_bare_uvloop,
    install=PYTHON_PACKAGES,
    settings="encoded once for all, written to each transport, no history",
    missing=lacks_modules("uvloop"),
    versions=versions_of("uvloop"),
)

OURS = own.PEER
PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        OURS,
        nchan.PEER,
        centrifugo.PEER,
        mercure.BOLT,
        mercure.LOCAL,
        gin.PEER,
        better_sse.PEER,
        aiohttp_sse_server.PEER,
        sse_starlette_uvicorn.PEER,
        fastapi_uvicorn.PEER,
        django_eventstream_asgi.UVICORN,
        django_eventstream_asgi.DAPHNE,
        BARE_UVLOOP,
    )
}
