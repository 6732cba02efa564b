"""The state of a run in one Locust process."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

import gevent
from gevent.event import Event
from locust.env import Environment
from locust.runners import STATE_RUNNING, MasterRunner, Runner, WorkerRunner

from fastsse.swarm.addresses import resolve
from fastsse.swarm.refusal import Refusal
from fastsse.swarm.request_template import DEFAULT_PATH
from loadtests.ledger import Ledger
from loadtests.messages import Numbers, Orders
from loadtests.options import DEFAULT_HOST, Options
from loadtests.scenarios import SCENARIOS, Scenario

log = logging.getLogger(__name__)
SETTLE_LOOK_S = 0.05


class Reader(Protocol):
    """One user that holds streams."""

    @property
    def settled(self) -> bool:
        """Whether each stream is open, or was given up."""

    def cut(self) -> None:
        """Cuts all its streams, as a network failure does."""

    def end(self) -> None:
        """Ends its streams and writes its last figures; later events are not measured."""


class Trial:
    """One object for each process; it is used for several runs.

    Attributes:
        ledger: where results go.
        numbers: gives users their numbers.
        orders: what concerns all processes.
        readers: the reading users of this process.
    """

    def __init__(self, environment: Environment, runner: Runner) -> None:
        self.environment = environment
        self.runner = runner
        self.ledger = Ledger(environment)
        self.numbers = Numbers(runner)
        self.orders = Orders(runner, self._cut_all, self.end_readers, self._abort)
        self.readers: set[Reader] = set()
        self._own_sources = list(self.parsed.sources)  # before the master's options come
        self._spawned = Event()
        self._settling: gevent.Greenlet[[], None] | None = None
        environment.events.spawning_complete.add_listener(lambda **_: self._spawned.set())

    def clear(self) -> None:
        """A new run begins."""
        self.ledger.clear()
        self.numbers.clear()
        self.orders.clear()
        self.readers.clear()
        self._spawned.clear()
        if not isinstance(self.runner, MasterRunner):
            if self._settling is not None:
                self._settling.kill()
            self._settling = gevent.spawn(self._settle)

    @property
    def parsed(self) -> Any:
        """All options, Locust's too, as they are now: the master's and a web form's come late."""
        return self.environment.parsed_options

    @property
    def options(self) -> Options:
        """Our options as they are now."""
        return Options.of(self.parsed)

    @property
    def sources(self) -> tuple[str, ...]:
        """Addresses to connect from: this worker's own, else the master's."""
        return tuple(self._own_sources or self.options.sources)

    @property
    def scenario(self) -> Scenario:
        """The chosen one, with the options' numbers."""
        options = self.options
        chosen = SCENARIOS[options.scenario]
        return dataclasses.replace(
            chosen,
            rate=options.rate or chosen.rate,
            event_bytes=options.event_size or chosen.event_bytes,
            population=options.population or chosen.population,
            group=options.streams,
        )

    @property
    def url(self) -> SplitResult:
        """The stream's address: the host that Locust was given, `/events` when it has no path."""
        url = urlsplit(self.environment.host or DEFAULT_HOST)
        return url if url.path.strip("/") else url._replace(path=DEFAULT_PATH)

    def check_target(self) -> None:
        """Raises a Refusal for a target that is another machine, unless the user answers for it."""
        url = self.url
        if self.options.own_target:
            return
        if not resolve(url._replace(scheme="http", netloc=_with_port(url))).is_loopback:
            raise Refusal(
                f"{url.geturl()} is not on this machine. Load that was not asked for is an attack: "
                "if the target is yours, say so with --i-own-this-target."
            )

    @property
    def settled(self) -> bool:
        """Whether each reader of this process has opened its streams once."""
        return bool(self.readers) and all(reader.settled for reader in self.readers)

    def _settle(self) -> None:
        self._spawned.wait()
        # The master's word that all are spawned can overtake its order to spawn them.
        while self._is_spawning or (self.readers and not self.settled):
            gevent.sleep(SETTLE_LOOK_S)
        self.orders.say_settled()

    @property
    def _is_spawning(self) -> bool:
        runner = self.runner
        return isinstance(runner, WorkerRunner) and runner.worker_state != STATE_RUNNING

    def end_readers(self) -> None:
        """Ends this process's readers at once and waits until their figures are written."""
        gevent.joinall([gevent.spawn(reader.end) for reader in list(self.readers)])

    def _cut_all(self) -> None:
        for reader in list(self.readers):
            reader.cut()

    def _abort(self, says: str) -> None:
        """Ends the run and, without a web page to correct it on, Locust: exit code 2."""
        log.error(says)
        self.environment.process_exit_code = 2
        gevent.spawn(self.runner.quit if self.parsed.headless else self.runner.stop)


def _with_port(url: SplitResult) -> str:
    if url.port or url.scheme != "https":
        return url.netloc
    return f"{url.netloc}:443"


_trials: dict[int, Trial] = {}


def make_trial(environment: Environment, runner: Runner) -> Trial:
    """Called once for each environment, when Locust has its runner."""
    trial = _trials[id(environment)] = Trial(environment, runner)
    return trial


def trial_of(environment: Environment) -> Trial:
    """The one that a user belongs to."""
    return _trials[id(environment)]
