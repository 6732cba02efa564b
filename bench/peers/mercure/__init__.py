"""Mercure's own hub, the build with Caddy that its documentation describes.

Settings follow its documentation (hub/config): one key for publishers and subscribers, anonymous
subscribers, no admin API. `mercure` keeps its history in Bolt, a file, which is the hub's default;
`mercure-local` has its other transport, which keeps nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

from bench.peers.peer import Peer
from fastsse.jwtkeys import encode_token

KEY = "a-key-for-the-benchmarks-0123456789abcdef"
PATH = "/.well-known/mercure"
_TOKEN = encode_token({"mercure": {"publish": ["*"]}}, KEY.encode(), "HS256", None)
_TRANSPORTS = {
    # 0.3 is the documented default; in a block the hub takes 0, which keeps all for ever.
    "bolt": "transport bolt {\n path @DIRECTORY@/mercure.db\n size 1000\n cleanup_frequency 0.3\n}",
    "local": "transport local",
}
_CONFIG = """{
    admin off
    auto_https off
}
http://127.0.0.1:@PORT@ {
    mercure {
        @TRANSPORT@
        publisher_jwt @KEY@
        subscriber_jwt @KEY@
        anonymous
    }
}
"""


def config(transport: str, directory: Path, port: int) -> str:
    """The Caddyfile."""
    text = _CONFIG.replace("@TRANSPORT@", _TRANSPORTS[transport])
    for name, value in {"DIRECTORY": str(directory), "PORT": str(port), "KEY": KEY}.items():
        text = text.replace(f"@{name}@", value)
    return text


def _command(transport: str) -> Callable[[Path], list[str]]:
    module = "bench.peers.mercure.start"
    return lambda directory: [sys.executable, "-m", module, transport, str(directory)]


def _missing() -> str:
    return "" if shutil.which("mercure") else "mercure"


def _versions() -> Mapping[str, str]:
    words = ["mercure", "version"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return {"mercure": said.strip()}


def stream_url(url: str, topic: str) -> str:
    return f"{url}{PATH}?topic={quote(topic)}"


def publish_url(url: str, topic: str) -> str:
    """The topic stands in the body."""
    return url + PATH


def envelope(topic: str) -> tuple[bytes, bytes]:
    """A form. The data of the benchmarks needs no escapes."""
    return b"topic=%s&data=" % quote(topic).encode(), b""


def _peer(name: str, title: str, transport: str, settings: str) -> Peer:
    return Peer(
        name=name,
        title=title,
        command=_command(transport),
        install="the program `mercure` of https://mercure.rocks, its folder in PATH",
        settings=settings,
        missing=_missing,
        versions=_versions,
        stream_url=stream_url,
        publish_url=publish_url,
        headers=(
            ("Authorization", f"Bearer {_TOKEN}"),
            ("Content-Type", "application/x-www-form-urlencoded"),
        ),
        envelope=envelope,
        environment={"GOMAXPROCS": os.environ.get("GOMAXPROCS", "1")},
    )


BOLT = _peer(
    "mercure",
    "Mercure, Bolt",
    "bolt",
    "Bolt (a file; the default), 1,000 updates kept, anonymous subscribers, a token to publish",
)
LOCAL = _peer(
    "mercure-local",
    "Mercure, local",
    "local",
    "the transport without history, anonymous subscribers, a token to publish",
)
