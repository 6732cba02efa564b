"""The hub process alone, for workers in other programs: what `fastsse hub` runs."""

import contextlib
import os

from fastsse.bus import HubProcess, run_hub
from fastsse.config import Config
from fastsse.http.descriptors import raise_soft_limit
from fastsse.http.listeners import open_unix
from fastsse.services import service_makers
from fastsse.supervisor.notify import Notifier
from fastsse.supervisor.process_setup import settle_memory

__all__ = ["run_hub_alone"]

# Only processes of the same user are accepted.
_MODE = 0o600


def run_hub_alone(config: Config, path: str) -> int:
    """Serves workers at a Unix socket until SIGTERM; returns the exit status.

    The file of the socket stays at the end. A hub that finds one takes the log from the workers
    that were connected to the hub before, if its store is memory: they reconnect within a second.

    Raises ListenError, or the error of the store. Main thread only.
    """
    raise_soft_limit(0)
    was_there = os.path.exists(path)
    with contextlib.closing(Notifier()) as notifier, open_unix(path, "--socket", _MODE) as sock:

        def ready(hub: HubProcess) -> None:
            settle_memory()
            notifier.ready("Serves workers.")

        return run_hub(
            config, sock, ready, workers=None, restarted=was_there, makers=service_makers
        )
