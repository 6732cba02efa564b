"""`python -m bench.peers.centrifugo.start <directory> [<more>]`: writes a configuration, with the
members of a JSON file in addition, and becomes Centrifugo, which can't choose a free port."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from bench.peers.centrifugo import config
from bench.peers.ports import free_port


def main() -> None:
    port = free_port()
    path = Path(sys.argv[1]) / "config.json"
    more = json.loads(Path(sys.argv[2]).read_text()) if len(sys.argv) > 2 else {}
    path.write_text(json.dumps({**config(port), **more}))
    print(f"listening on 127.0.0.1:{port}", flush=True)
    os.execvp("centrifugo", ["centrifugo", "--config", str(path)])


if __name__ == "__main__":
    main()
