"""What Locust loads: `locust -f loadtests/locustfile.py` (see README.md)."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

# Locust puts this file's folder on the path, not the one that the package stands in.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import gevent
from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import StopTest
from locust.runners import MasterRunner, Runner, WorkerRunner
from locust.web import WebUI
from rich.console import Console

from fastsse.swarm import Refusal
from loadtests.closing import Closing
from loadtests.options import DEFAULT_HOST, READER_CLASSES, add_options, reader_weights
from loadtests.publisher import Publisher
from loadtests.readers import Reconnector, SlowReader, SseUser
from loadtests.server import OwnServer
from loadtests.shaped import RunShape
from loadtests.storm import Storm
from loadtests.swarmuser import SwarmUser
from loadtests.trial import Trial, make_trial
from loadtests.watch import ServerWatch, probe_stalls
from loadtests.webtabs import add_tabs

__all__ = ["Publisher", "Reconnector", "SlowReader", "SseUser", "SwarmUser"]

USERS = {user.__name__: user for user in (Publisher, Reconnector, SlowReader, SseUser, SwarmUser)}


@events.init_command_line_parser.add_listener
def declare_options(parser: LocustArgumentParser, **_: Any) -> None:
    add_options(parser)


@events.init.add_listener
def begin(environment: Environment, runner: Runner, web_ui: WebUI | None, **_: Any) -> None:
    """Called when Locust has its runner: makes all parts of this process."""
    _allow_many_files()
    gevent.get_hub().NOT_ERROR += (StopTest,)  # its message is enough
    environment.host = environment.host or DEFAULT_HOST
    trial = make_trial(environment, runner)
    if not isinstance(runner, MasterRunner):
        gevent.spawn(probe_stalls, trial)
    if not isinstance(runner, WorkerRunner):
        _lead(environment, trial, web_ui)
    else:
        environment.events.test_start.add_listener(lambda **_: _start(trial, None))


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=120)


def _allow_many_files() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _lead(environment: Environment, trial: Trial, web_ui: WebUI | None) -> None:
    """The part of the master, or of the only process."""
    watch = ServerWatch(trial)
    closing = Closing(trial, watch)
    command = trial.options.server_command
    server = OwnServer(command, trial.url) if command else None
    shape = RunShape(trial, Storm(trial, server))
    shape.runner = environment.runner
    environment.shape_class = shape
    if web_ui is not None:
        add_tabs(web_ui, trial)

    def start(**_: Any) -> None:
        watch.clear()
        closing.clear()
        _start(trial, server)
        shape.reset_time()

    def stop(**_: Any) -> None:
        watch.look()
        trial.orders.finish()

    def write(**_: Any) -> None:
        if server is not None:
            server.end()
        if trial.options.figures:
            closing.write(Path(trial.options.figures))

    def end(**_: Any) -> None:
        write()  # again: workers' last reports may have come since
        closing.print(_console())

    environment.events.test_start.add_listener(start)
    environment.events.test_stopping.add_listener(stop)
    environment.events.test_stop.add_listener(write)
    environment.events.quit.add_listener(end)
    environment.events.usage_monitor.add_listener(
        lambda cpu_usage, **_: closing.note_cpu(cpu_usage)
    )
    environment.events.worker_report.add_listener(
        lambda data, **_: closing.note_cpu(data.get("fastsse", {}).get("cpu_percent", 0.0))
    )
    gevent.spawn(watch.run)


def _start(trial: Trial, server: OwnServer | None) -> None:
    """A run begins. Raises StopTest before any user starts, if it must not run."""
    trial.clear()
    try:
        trial.check_target()
        if not isinstance(trial.runner, WorkerRunner):
            _choose_users(trial.environment, trial)
        if server is not None:
            server.start()
    except (Refusal, ValueError) as error:
        trial.environment.process_exit_code = 2
        raise StopTest(str(error)) from None


def _choose_users(environment: Environment, trial: Trial) -> None:
    """Those that `--readers` and `--publishers` ask for. Workers keep all: the master decides."""
    weights = reader_weights(trial.options.readers)
    for name in READER_CLASSES:
        USERS[name].weight = weights.get(name, 0)
    Publisher.fixed_count = trial.options.publishers
    chosen = [USERS[name] for name in weights]
    environment.user_classes[:] = [*chosen, *([Publisher] if Publisher.fixed_count else [])]
