"""Centrifugo with its unidirectional SSE transport and its HTTP API.

Settings follow its documentation (transports/uni_sse, server/server_api): the memory engine,
a history of 1,000 publications a channel as the others keep, no log, anonymous connections.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from bench.peers.peer import Peer

KEY = "a-key"
_INSTALL = "go install github.com/centrifugal/centrifugo/v6@latest, and its folder in PATH"


def config(port: int) -> dict[str, object]:
    """The configuration file."""
    return {
        "http_server": {"address": "127.0.0.1", "port": str(port)},
        "log": {"level": "none"},
        "client": {"allow_anonymous_connect_without_token": True},
        "http_api": {"key": KEY},
        "uni_sse": {"enabled": True},
        "channel": {
            "without_namespace": {
                "allow_subscribe_for_client": True,
                "allow_subscribe_for_anonymous": True,
                "history_size": 1000,
                "history_ttl": "1h",
            }
        },
    }


def _command(directory: Path) -> list[str]:
    return [sys.executable, "-m", "bench.peers.centrifugo.start", str(directory)]


def _missing() -> str:
    return "" if shutil.which("centrifugo") else "centrifugo"


def _versions() -> Mapping[str, str]:
    words = ["centrifugo", "version"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    built = subprocess.run(
        ["go", "version", "-m", shutil.which("centrifugo") or ""],
        capture_output=True, text=True, check=False,
    ).stdout if shutil.which("go") else ""  # fmt: skip
    modules = [line.split() for line in built.splitlines() if line.strip().startswith("mod")]
    version = modules[0][2].removeprefix("v") if modules else said.split()[1]
    return {"centrifugo": version}


def stream_url(url: str, topic: str) -> str:
    """EventSource cannot send a body, so the connect command is in the URL."""
    connect = quote(json.dumps({"subs": {topic: {}}}, separators=(",", ":")))
    return f"{url}/connection/uni_sse?cf_connect={connect}"


def publish_url(url: str, topic: str) -> str:
    """The channel stands in the body."""
    return f"{url}/api/publish"


def envelope(topic: str) -> tuple[bytes, bytes]:
    """Around the data."""
    return b'{"channel":%s,"data":' % json.dumps(topic).encode(), b"}"


PEER = Peer(
    name="centrifugo",
    title="Centrifugo, uni_sse",
    command=_command,
    install=_INSTALL,
    settings="memory engine, 1,000 publications kept a channel, no log, HTTP API",
    missing=_missing,
    versions=_versions,
    stream_url=stream_url,
    publish_url=publish_url,
    headers=(("X-API-Key", KEY), ("Content-Type", "application/json")),
    envelope=envelope,
    environment={"GOMAXPROCS": os.environ.get("GOMAXPROCS", "1")},
)
