"""nginx with the nchan module, as Debian packages them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from bench.peers.peer import Peer

CONFIG = Path(__file__).with_name("nginx.conf")
MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")


def nginx() -> str | None:
    """Debian puts it where only root looks."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def _lacks() -> str:
    missing = [] if nginx() else ["nginx"]
    if not MODULE.exists():
        missing.append("nchan")
    return ", ".join(missing)


def _command(directory: Path) -> list[str]:
    return [sys.executable, "-m", "bench.peers.nchan.start", str(directory)]


def _versions() -> Mapping[str, str]:
    said = subprocess.run([str(nginx()), "-v"], capture_output=True, text=True, check=True).stderr
    package = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Version}", "libnginx-mod-nchan"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {"nginx": said.partition("nginx/")[2].strip(), "nchan": package.stdout or "unknown"}


PEER = Peer(
    name="nchan",
    title="nginx + nchan",
    command=_command,
    install="apt-get install nginx libnginx-mod-nchan",
    settings="one worker (one core), no access log, 1,000 messages a channel in memory",
    missing=_lacks,
    versions=_versions,
)
