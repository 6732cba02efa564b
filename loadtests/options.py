"""The options of a run in addition to Locust's own: on the command line or in a profile.

A profile is a Locust configuration file (`locust --config loadtests/profiles/news-10k.toml`), so
that everything in it can also be given as a flag, and flags win. Workers need none of it: Locust
hands them the master's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from fastsse import units
from fastsse.swarm.command import read_rate, read_share
from loadtests.scenarios import SCENARIOS
from loadtests.shapes import SHAPES

if TYPE_CHECKING:  # Locust's import makes sockets and threads of the whole process its own.
    from locust.argument_parser import LocustArgumentParser

DEFAULT_HOST = "http://127.0.0.1:8080"
READER_CLASSES = ("SseUser", "SlowReader", "Reconnector", "SwarmUser")


@dataclass(frozen=True, slots=True)
class Options:
    """A run's options. 0 or "": the default of the scenario or the tool."""

    scenario: str
    readers: str
    publishers: int
    rate: float
    event_size: int
    population: int
    publish_from: str
    publish_for: float
    streams: int
    connect_rate: float
    swarm_processes: int
    sources: list[str]
    churn: float
    slow_share: float
    slow_rate: float
    stay: float
    shape: str
    server_command: str
    figures: str
    own_target: bool

    @classmethod
    def of(cls, parsed: argparse.Namespace) -> Options:
        """From Locust's parsed options."""
        return cls(**{field.name: getattr(parsed, field.name) for field in fields(cls)})


def reader_weights(text: str) -> dict[str, int]:
    """`SseUser=8,SlowReader=1` as weights by class name.

    Raises:
        ValueError: no such class, or a weight that is no positive number.
    """
    weights: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, weight = part.partition("=")
        if name not in READER_CLASSES:
            raise ValueError(f"{name!r} is none of {', '.join(READER_CLASSES)}")
        if weight and not (weight.isdecimal() and int(weight)):
            raise ValueError(f"{part!r}: a weight is 1 or more")
        weights[name] = int(weight or 1)
    if not weights:
        raise ValueError(f"name at least one of {', '.join(READER_CLASSES)}")
    return weights


def _readers(text: str) -> str:
    reader_weights(text)
    return text


def _read(name: str, read: Callable[[str], Any]) -> Callable[[str], Any]:
    """A type for argparse that says what is wrong in `read`'s words."""

    def convert(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error

    convert.__name__ = name
    return convert


def _count(least: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise ValueError(f"must be {least} or more")
        return int(text)

    return convert


NUMBER = _read("number", _count(0))
POSITIVE = _read("number", _count(1))
RATE = _read("rate", read_rate)
SHARE = _read("share", read_share)
SIZE = _read("size", units.parse_size_bytes)
SECONDS = _read("duration", units.parse_duration_s)
READERS = _read("readers", _readers)


def add_options(parser: LocustArgumentParser) -> None:
    """Declares them, each once. Those of a group would not stand in Locust's web form."""
    add = parser.add_argument
    # fmt: off
    says = "; ".join(f"{name}: {scenario.says}" for name, scenario in SCENARIOS.items())
    add("--scenario", choices=list(SCENARIOS), default="news", help=says)
    add("--readers", type=READERS, default="SseUser", metavar="CLASS[=WEIGHT],…",
        help=f"Who listens: {', '.join(READER_CLASSES)}, with weights.")
    add("--publishers", type=NUMBER, default=1, metavar="N",
        help="Publisher users, of all users (-u); they share the rate.")
    add("--rate", type=RATE, default=0.0, metavar="RATE",
        help="Events published a second in all, such as 100/s. Default: the scenario's.")
    add("--event-size", type=SIZE, default=0, metavar="SIZE",
        help="Data of an event. Default: the scenario's.")
    add("--population", type=NUMBER, default=0, metavar="N",
        help="Symbols, users or logs of the scenario. Default: the scenario's.")
    add("--publish-from", choices=["start", "settled"], default="settled",
        help="Publish from the start, or once all readers of the publisher's process are open.")
    add("--publish-for", type=SECONDS, default=0.0, metavar="TIME",
        help="Publish this long; a steady run then ends when all has arrived. Default: always.")
    add("--streams", type=POSITIVE, default=5000, metavar="N",
        help="Streams that one SwarmUser holds, and readers in a group of topics.")
    add("--connect-rate", type=RATE, default=0.0, metavar="RATE",
        help="New streams a second of one SwarmUser. Default: as fast as answers come.")
    add("--swarm-processes", type=NUMBER, default=0, metavar="N",
        help="Processes of one SwarmUser. Default: what descriptors and free cores ask for.")
    add("--sources", action="append", default=[], metavar="NET", include_in_web_ui=False,
        help="Addresses that SwarmUsers connect from; repeatable; each worker may have its own.")
    add("--churn", type=RATE, default=0.0, metavar="RATE",
        help="Streams of one SwarmUser that end each second, each replaced by a new one.")
    add("--slow-share", type=SHARE, default=0.0, metavar="SHARE",
        help="Share of a SwarmUser's streams that read slowly, such as 5%%.")
    add("--slow-rate", type=SIZE, default=1024, metavar="BYTES",
        help="Bytes that a slow reader reads a second; 0: nothing.")
    add("--stay", type=SECONDS, default=5.0, metavar="TIME",
        help="How long a Reconnector stays open on average, before it disconnects.")
    add("--shape", choices=list(SHAPES), default="steady",
        help="How the number of readers changes over the run; storm: all are cut at once.")
    add("--server-command", default="", metavar="COMMAND", include_in_web_ui=False,
        help="Start this server for the run; the storm restarts it. Without it the storm cuts "
        "the streams instead.")
    add("--figures", default="", metavar="DIR", include_in_web_ui=False,
        help="Write exact figures there as JSON: run.json, and a file for each swarm.")
    add("--i-own-this-target", dest="own_target", action="store_true", include_in_web_ui=False,
        help="Allow a target that is not this machine.")
    # fmt: on
