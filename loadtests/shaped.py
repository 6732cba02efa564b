"""Locust's load shape of a run: the number of users, and the end."""

from __future__ import annotations

from locust import LoadTestShape
from locust.runners import MasterRunner

from loadtests.shapes import STRIKE_AT, readers_at
from loadtests.storm import Storm
from loadtests.trial import Trial

DEFAULT_RUN_S = 60.0
"""Of a shape that goes by shares of the run time, when none is given."""

CALM_S = 2.0
"""Before a storm without a run time strikes."""

QUIET_S = 2.5
"""Without anything new until a run counts as over; swarms are looked at once a second."""

QUIET_DISTRIBUTED_S = 7.0
"""Workers report every three."""


class RunShape(LoadTestShape):
    """Follows `--shape` with Locust's own users (-u, publishers among them), spawn rate and run
    time.

    Two kinds of run end earlier, when everything is counted. A steady run with `--publish-for` ends
    when all events are published and have arrived. A storm without a run time cuts the streams when
    all readers are open, and ends when all have reconnected.
    """

    abstract = True  # made by hand: it needs the trial
    use_common_options = True

    def __init__(self, trial: Trial, storm: Storm) -> None:
        super().__init__()
        self._trial = trial
        self._storm = storm
        self.reset_time()

    def reset_time(self) -> None:
        """A new run begins."""
        super().reset_time()
        self._storm.clear()
        self._seen = -1
        self._seen_at_s = self._unsettled_at_s = 0.0

    def tick(self) -> tuple[int, float] | None:
        """Called about once a second; None ends the run."""
        run_s = self.get_run_time()
        progress = run_s / self._length_s() if self._length_s() else 0.0
        if progress >= 1 or self._is_over(run_s):
            # Before Locust stops: that blocks its loop, and no reader shall have measured it.
            self._trial.orders.finish()
            return None
        if self._trial.options.shape == "storm" and not self._storm.struck:
            self._await_storm(run_s, progress)
        return self._users(progress)

    def _length_s(self) -> float:
        """Of the whole run; 0: it has no end of its own."""
        open_ended = self._trial.options.shape in ("steady", "storm")
        return float(self._trial.parsed.run_time or (0.0 if open_ended else DEFAULT_RUN_S))

    def _users(self, progress: float) -> tuple[int, float]:
        """How many users, and how many a second to add or remove."""
        parsed, options = self._trial.parsed, self._trial.options
        users = int(parsed.num_users or 1)
        publishers = min(options.publishers, users - 1)
        readers = readers_at(options.shape, progress, users - publishers)
        return publishers + readers, float(parsed.spawn_rate or users)

    def _await_storm(self, run_s: float, progress: float) -> None:
        if not self._trial.orders.all_settled.is_set():
            self._unsettled_at_s = run_s
        calm = run_s - self._unsettled_at_s >= CALM_S
        if (progress >= STRIKE_AT) if self._length_s() else calm:
            self._storm.strike()

    def _is_over(self, run_s: float) -> bool:
        """Whether the run has reached its goal, and nothing was received for a while."""
        options = self._trial.options
        if options.shape == "steady":
            done = self._trial.orders.published >= max(1, options.publishers)
            seen = self._trial.ledger.received
        else:
            done = options.shape == "storm" and not self._length_s() and self._storm.over
            seen = 0  # publishing goes on
        if seen != self._seen or not done:
            self._seen, self._seen_at_s = seen, run_s
        distributed = isinstance(self.runner, MasterRunner)
        return done and run_s - self._seen_at_s >= (QUIET_DISTRIBUTED_S if distributed else QUIET_S)
