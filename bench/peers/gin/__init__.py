"""A Gin server with one buffered channel per client, built from Debian's source packages."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from bench.peers.peer import Peer

SOURCE = Path(__file__).with_name("main.go")
BUILT = Path(__file__).parents[3] / "build" / "bench" / "gin"
# Where Debian's golang-*-dev packages put what they bring.
GOPATH = Path("/usr/share/gocode")
GIN = GOPATH / "src/github.com/gin-gonic/gin"


def _lacks() -> str:
    missing = [] if shutil.which("go") else ["go"]
    if not GIN.exists():
        missing.append("Gin's source")
    return ", ".join(missing)


def _command(directory: Path) -> list[str]:
    """Builds it first, without modules and so without a network, when its source is newer."""
    if not BUILT.exists() or BUILT.stat().st_mtime < SOURCE.stat().st_mtime:
        BUILT.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "GOPATH": str(GOPATH), "GO111MODULE": "off"}
        command = ["go", "build", "-o", str(BUILT), str(SOURCE)]
        subprocess.run(command, check=True, env=environment)
    return [str(BUILT)]


def _versions() -> Mapping[str, str]:
    go = subprocess.run(["go", "version"], capture_output=True, text=True, check=True).stdout
    gin = (GIN / "version.go").read_text().partition('Version = "v')[2].partition('"')[0]
    return {"go": go.split()[2].removeprefix("go"), "gin": gin}


PEER = Peer(
    name="gin",
    title="Gin, a channel per client",
    command=_command,
    install="apt-get install golang-go golang-github-gin-gonic-gin-dev",
    settings="release mode, no logger, a channel of 256 events a client",
    missing=_lacks,
    versions=_versions,
    # Gin's documentation: release mode is for production.
    environment={"GIN_MODE": "release"},
)
