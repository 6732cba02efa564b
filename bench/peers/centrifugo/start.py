"""`python -m bench.peers.centrifugo.start <directory>`: writes a configuration and becomes
Centrifugo, which can't choose a free port by itself."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

from bench.peers.centrifugo import config


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = int(chosen.getsockname()[1])
    path = Path(sys.argv[1]) / "config.json"
    path.write_text(json.dumps(config(port)))
    print(f"listening on 127.0.0.1:{port}", flush=True)
    os.execvp("centrifugo", ["centrifugo", "--config", str(path)])


if __name__ == "__main__":
    main()
