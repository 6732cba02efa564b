"""All streams are cut at once: by a restart of the server, or as by a network failure."""

from __future__ import annotations

import logging

import gevent

from fastsse.swarm import Refusal
from loadtests.server import OwnServer
from loadtests.trial import Trial

log = logging.getLogger(__name__)


class Storm:
    """Cuts all streams once a run.

    Arguments:
        server: is restarted; None: all streams are cut by the clients.
    """

    def __init__(self, trial: Trial, server: OwnServer | None) -> None:
        self._trial = trial
        self._server = server
        self.clear()

    def clear(self) -> None:
        """A new run begins."""
        self.struck = False
        self._struck_all = False
        self._streams = self._back_before = 0

    def strike(self) -> None:
        """Begins it; returns at once."""
        self.struck = True
        self._streams = self._trial.ledger.states().get("open", 0)
        self._back_before = self._trial.ledger.returned
        gevent.spawn(self._strike)

    @property
    def over(self) -> bool:
        """Whether all cut streams are reported as open again."""
        ledger = self._trial.ledger
        return (
            self._struck_all
            and ledger.returned - self._back_before >= self._streams
            and ledger.states().get("open", 0) >= self._streams
        )

    def _strike(self) -> None:
        log.info("The storm strikes %d streams.", self._streams)
        try:
            if self._server is None:
                self._trial.orders.strike()
            else:
                self._server.restart()
        except Refusal as refusal:
            self._trial.orders.abort(str(refusal))
        self._struck_all = True
