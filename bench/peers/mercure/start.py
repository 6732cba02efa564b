"""`python -m bench.peers.mercure.start <transport> <directory>`: writes a Caddyfile and becomes the
hub, which can't choose a free port."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bench.peers.mercure import config
from bench.peers.ports import free_port


def main() -> None:
    transport, directory = sys.argv[1], Path(sys.argv[2])
    port = free_port()
    path = directory / "Caddyfile"
    path.write_text(config(transport, directory, port))
    print(f"listening on 127.0.0.1:{port}", flush=True)
    words = ["mercure", "run", "--config", str(path), "--adapter", "caddyfile"]
    # Caddy keeps files of its own below the home directory.
    os.execvpe("mercure", words, {**os.environ, "HOME": str(directory)})


if __name__ == "__main__":
    main()
