"""A free port for a peer that can't choose one itself."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A port of 127.0.0.1 that was free. If a program takes it first, the peer ends and says so."""
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        return int(chosen.getsockname()[1])
