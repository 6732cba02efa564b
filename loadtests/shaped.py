"""Locust's load shape of a run, and the storm's strike."""

from __future__ import annotations

import gevent
from locust import LoadTestShape
from locust.runners import MasterRunner

from fastsse.swarm import Refusal
from loadtests.server import OwnServer
from loadtests.shapes import STRIKE_AT, readers_at
from loadtests.trial import Trial

DEFAULT_RUN_S = 60.0
"""Of a shape that needs an end, when no run time is given."""

QUIET_S = 2.5
"""Swarms are looked at once a second."""

QUIET_DISTRIBUTED_S = 7.0
"""Workers report every three."""


class RunShape(LoadTestShape):
    """Follows `--shape` with Locust's own users (-u, publishers among them), spawn rate and run
    time. A steady run with `--publish-for` ends earlier: when all was published and has arrived."""

    abstract = True  # made by hand: it needs the trial
    use_common_options = True

    def __init__(self, trial: Trial, server: OwnServer | None) -> None:
        super().__init__()
        self._trial = trial
        self._server = server
        self.reset_time()

    def reset_time(self) -> None:
        """A new run begins."""
        super().reset_time()
        self._struck = False
        self._received = 0
        self._received_at_s = 0.0

    def tick(self) -> tuple[int, float] | None:
        """Called about once a second; None ends the run."""
        options = self._trial.options
        run_s = self.get_run_time()
        progress = run_s / self._length_s() if self._length_s() else 0.0
        if progress >= 1 or (options.shape == "steady" and self._all_arrived(run_s)):
            # Before Locust stops: that blocks its loop, and no reader shall have measured it.
            self._trial.orders.finish()
            return None
        if options.shape == "storm" and progress >= STRIKE_AT and not self._struck:
            self._struck = True
            gevent.spawn(self._strike)
        return self._users(progress)

    def _length_s(self) -> float:
        """Of the whole run; 0: it has no end."""
        parsed = self._trial.parsed
        steady = self._trial.options.shape == "steady"
        return float(parsed.run_time or (0.0 if steady else DEFAULT_RUN_S))

    def _users(self, progress: float) -> tuple[int, float]:
        """How many users, and how many a second to add or remove."""
        parsed, options = self._trial.parsed, self._trial.options
        users = int(parsed.num_users or 1)
        publishers = min(options.publishers, users - 1)
        readers = readers_at(options.shape, progress, users - publishers)
        return publishers + readers, float(parsed.spawn_rate or users)

    def _all_arrived(self, run_s: float) -> bool:
        """All publishers are through, and nothing was received for a while since."""
        published = self._trial.orders.published >= max(1, self._trial.options.publishers)
        received = self._trial.ledger.received
        if received != self._received or not published:
            self._received, self._received_at_s = received, run_s
        distributed = isinstance(self.runner, MasterRunner)
        quiet_s = QUIET_DISTRIBUTED_S if distributed else QUIET_S
        return published and run_s - self._received_at_s >= quiet_s

    def _strike(self) -> None:
        if self._server is None:
            self._trial.orders.strike()
            return
        try:
            self._server.restart()
        except Refusal as refusal:
            self._trial.orders.abort(str(refusal))
