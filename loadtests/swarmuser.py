"""A Locust user that is tens of thousands of streams: it drives a native swarm.

The swarm's processes hold and check the streams. This greenlet reads their shared figures and adds
new observations to Locust's statistics, in a few milliseconds a second for any number of streams.
"""

from __future__ import annotations

import json
from pathlib import Path

import gevent
from locust import User, task
from locust.env import Environment

from fastsse.swarm import Crew, Plan, Refusal
from fastsse.swarm.run import clock_offset_us, report_of
from loadtests.account import KIND, Account
from loadtests.trial import Trial, trial_of

LOOK_S = 1.0
OPENING_LOOK_S = 0.1
"""Between looks while streams are being opened."""

AT_ONCE = -1.0
"""A timeout that does not wait."""


class SwarmUser(User):
    """`--streams` connections of the scenario, in processes of their own.

    In Locust's statistics, type `swarm`: `delivery` counts every event that the streams received
    (`counters.events` of the swarm's JSON, exactly, once the run is over; those that are replayed
    or carry no due time have no duration), the rest is named as for Python readers.
    """

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.trial = trial_of(environment)
        self.trial.readers.add(self)
        self.settled = False
        self._crew: Crew | None = None

    def on_start(self) -> None:
        self.block = self.trial.numbers.take(KIND)
        self._clock_offset_us = clock_offset_us()
        try:
            self._crew = Crew(plan_of(self.trial, self.block)).__enter__()
        except Refusal as refusal:
            self.settled = True
            self.trial.orders.abort(str(refusal))
        else:
            self._account = Account(self.trial.ledger, conflates=self.trial.scenario.conflates)

    @task
    def watch(self) -> None:
        """Adds new observations until it is killed."""
        if self._crew is None:
            gevent.sleep(LOOK_S)
            return
        if not self._crew.alive:
            self._crew = None
            self.settled = True
            self.trial.orders.abort("A process of the swarm failed; its message stands above.")
            return
        self.settled = self.settled or self._crew.wait_until_settled(AT_ONCE)
        self._account.look(self._crew, pause=gevent.sleep)
        gevent.sleep(LOOK_S if self.settled else OPENING_LOOK_S)

    def cut(self) -> None:
        """Cuts every stream, as a network failure does."""
        if self._crew is not None:
            self._crew.cut(self._crew.counters()["stream"])

    def end(self) -> None:
        """Ends the streams, adds the last figures, and writes the swarm's JSON."""
        if self._crew is None:
            return
        crew, self._crew = self._crew, None
        self.settled = False
        report = report_of(crew, clock_offset_us() - self._clock_offset_us)
        self._account.close(report.figures)
        folder = self.trial.options.figures
        if folder:
            path = Path(folder, f"swarm-{self.block}.json")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(report.as_json(), indent=1) + "\n")

    def on_stop(self) -> None:
        self.end()
        self.trial.readers.discard(self)
        self.trial.numbers.give_back(KIND, self.block)


def plan_of(trial: Trial, group: int) -> Plan:
    """The swarm of one group of readers."""
    options, scenario, url = trial.options, trial.scenario, trial.url
    if scenario.last:
        query = "&".join(filter(None, (url.query, f"last={scenario.last}")))
        url = url._replace(query=query)
    return Plan(
        url=url.geturl(),
        connections=options.streams,
        topics=scenario.followed(group),
        connect_rate=options.connect_rate,
        processes=options.swarm_processes,
        sources=trial.sources,
        own_target=options.own_target,
        churn_rate=options.churn,
        slow_share=options.slow_share,
        slow_bytes_per_s=options.slow_rate,
    )
