"""The real proxies, with the files that `fastsse proxy-config` prints."""

import os
import shutil
import sys
from pathlib import Path

from click.testing import CliRunner

from fastsse.cli import fastsse
from tests.cli.commandline import ROOT

# Programs for administrators, and those that pip has installed.
PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", str(Path(sys.executable).parent)))
# As root, nginx would give up rights that it needs for the folder of the test.
AS_ROOT = () if os.geteuid() else ("-g", "user root;")
_NAMES = {"nginx": "proxy.conf", "haproxy": "haproxy.cfg", "caddy": "Caddyfile"}


def program(name: str) -> str | None:
    """The path of a program."""
    return shutil.which(name, path=PATH)


def proxy_config(*arguments: str) -> str:
    """What `fastsse proxy-config` prints."""
    ran = CliRunner().invoke(fastsse, ["proxy-config", *arguments], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return ran.stdout


def proxy_file(folder: Path, proxy: str, *arguments: str) -> Path:
    """The proxy's file in a folder that is its own; HAProxy's other file lies next to it."""
    shutil.copy(ROOT / "deploy" / "retry.http", folder)
    path = folder / _NAMES[proxy]
    path.write_text(proxy_config(proxy, "--run-folder", str(folder), *arguments))
    return path
