"""A hub process for tests: `python -m tests.bus.hubprogram FD STORE WORKERS RESTARTED`.

Says `ready` on its standard output when it serves.
"""

import socket
import sys

from fastsse.bus import run_hub
from fastsse.config import Config


def main() -> int:
    fd, store, workers, restarted = sys.argv[1:]
    listening = socket.socket(fileno=int(fd))
    config = Config(port=0, store=store, history_events=100_000)
    return run_hub(
        config,
        listening,
        lambda hub: print("ready", flush=True),
        workers=int(workers),
        restarted=restarted == "yes",
    )


if __name__ == "__main__":
    sys.exit(main())
