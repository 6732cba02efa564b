"""A server that belongs to the run: started before it, restarted in the middle of a storm."""

from __future__ import annotations

import logging
import shlex
import subprocess
import time
from urllib.parse import SplitResult

from fastsse.swarm import Refusal
from loadtests.wire import BadAnswer, Wire

log = logging.getLogger(__name__)
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
LOOK_S = 0.05


class OwnServer:
    """A child process. Methods wait, and let other greenlets run meanwhile."""

    def __init__(self, command: str, url: SplitResult) -> None:
        self._command = shlex.split(command)
        self._url = url
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = False

    def start(self) -> None:
        """Returns when it answers. Raises a Refusal if it does not, or if another server does."""
        if self._answers():
            raise Refusal(
                f"--server-command: something answers at {self._url.netloc} already. "
                "Stop it, or choose another port."
            )
        try:
            self._process = subprocess.Popen(self._command)
        except OSError as error:
            raise Refusal(f"--server-command: {self._command[0]}: {error.strerror}.") from error
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None:
                raise Refusal(f"--server-command ended with {self._process.returncode}.")
            if time.monotonic() > deadline:
                raise Refusal(f"--server-command does not answer at {self._url.netloc}.")
            time.sleep(LOOK_S)

    def restart(self) -> None:
        """Stops it as an operator would (SIGTERM, which lets it drain) and starts it again."""
        log.info("Restarting the server.")
        self._stop()
        # The run may be over by now.
        if not self._ended:
            self.start()
            log.info("The server is back.")

    def end(self) -> None:
        """Stops it. Idempotent."""
        self._ended = True
        self._stop()

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _answers(self) -> bool:
        try:
            wire = Wire(self._url)
        except OSError:
            return False
        try:
            wire.send("GET", "/readyz")
            return wire.status() < 500
        except (OSError, BadAnswer):
            return False
        finally:
            wire.close()
