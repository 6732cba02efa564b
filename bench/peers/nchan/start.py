"""`python -m bench.peers.nchan.start <directory>`: writes a configuration and becomes nginx.

nginx can't choose a free port by itself, so one is chosen here. If a program takes it in between,
nginx ends with a message.
"""

from __future__ import annotations

import os
import pwd
import resource
import sys
from pathlib import Path

from bench.peers.nchan import CONFIG, MODULE, nginx
from bench.peers.ports import free_port


def write_config(directory: Path, port: int) -> Path:
    """nginx.conf with this run's values in it."""
    values = {
        "MODULE": str(MODULE),
        "USER": pwd.getpwuid(os.geteuid()).pw_name,
        "FILES": str(resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
        "PORT": str(port),
        "DIRECTORY": str(directory),
    }
    text = CONFIG.read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    written = directory / "nginx.conf"
    written.write_text(text)
    return written


def main() -> None:
    directory = Path(sys.argv[1])
    port = free_port()
    config = write_config(directory, port)
    print(f"listening on 127.0.0.1:{port}", flush=True)
    program = str(nginx())
    os.execv(program, [program, "-p", str(directory), "-c", str(config), "-e", "stderr"])


if __name__ == "__main__":
    main()
