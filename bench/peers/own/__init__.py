"""fastsse itself, with its defaults, measured next to its peers in the same run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench.peers.peer import Peer, versions_of


def _command(directory: Path) -> list[str]:
    return [sys.executable, "-m", "fastsse", "serve", "--port", "0", "--log-format", "json"]


def _address(output: str) -> str | None:
    """From the start-up line, which is JSON."""
    for line in output.splitlines(keepends=True):
        if '"addresses"' in line and line.endswith("\n"):
            return str(json.loads(line)["addresses"][0]).removeprefix("http://")
    return None


PEER = Peer(
    name="fastsse",
    title="fastsse",
    command=_command,
    install="pip install .",
    settings="defaults",
    missing=lambda: "",
    versions=versions_of("fastsse", "uvloop", "httptools"),
    address=_address,
)
