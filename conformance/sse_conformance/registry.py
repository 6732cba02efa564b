"""The list of checks, and how they run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from sse_conformance.hub import Hub
from sse_conformance.wire import ProtocolError

Status = Literal["pass", "fail", "not supported", "not tested"]
STATUSES: tuple[Status, ...] = ("pass", "fail", "not supported", "not tested")
GROUPS = {
    "wire": "Wire format",
    "clients": "Real clients",
    "resume": "Resume",
    "fanout": "Fan-out and order",
    "slow": "Slow clients",
    "overload": "Overload",
    "auth": "Tokens and private events",
    "drain": "Stop and restart",
    "http": "HTTP",
    "proxies": "Proxies",
}


class Failed(Exception):
    """The hub does not do what the check asks for; the message says what was seen."""


class NotSupported(Exception):
    """The hub does not claim to do it."""


class NotTested(Exception):
    """Something that the check needs is not here."""


def expect(condition: object, seen: str) -> None:
    """Fails the check with what was seen."""
    if not condition:
        raise Failed(seen)


class Servers(Protocol):
    """Starts further servers of the same hub, where the suite knows how."""

    def started(self, variant: str = "") -> Any:
        """A context manager that gives a server; raises `NotTested` or `NotSupported`."""


@dataclass(frozen=True, slots=True)
class Case:
    """What a check gets.

    Attributes:
        is_short: the run is a short one: fewer repeats.
        node_modules: a folder with npm packages, or empty.
    """

    hub: Hub
    servers: Servers
    is_short: bool
    node_modules: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        source: the specification that asks for it, or `hub` when it is this suite's opinion of
            what a hub must do.
        needs: capabilities that an adapter may say are not there.
        is_long: it takes seconds; a short run leaves it out.
    """

    id: str
    title: str
    source: str
    needs: tuple[str, ...]
    is_long: bool
    run: Callable[[Case], str | None]

    @property
    def group(self) -> str:
        return self.id.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one check: what was seen, and commands that show it."""

    id: str
    title: str
    source: str
    status: Status
    seen: str = ""
    reproduce: list[str] = field(default_factory=list)


CHECKS: dict[str, Check] = {}


def check(
    id: str, title: str, *, source: str = "hub", needs: Iterable[str] = (), is_long: bool = False
) -> Callable[[Callable[[Case], str | None]], Callable[[Case], str | None]]:
    """Registers a check. It returns a remark or None, and raises when it does not pass."""

    def register(run: Callable[[Case], str | None]) -> Callable[[Case], str | None]:
        assert id not in CHECKS, id
        CHECKS[id] = Check(id, title, source, tuple(needs), is_long, run)
        return run

    return register


def selected(patterns: Iterable[str], *, short: bool) -> Iterator[Check]:
    """The checks whose id is one of the patterns or begins with `pattern.`; without any: all."""
    wanted = list(patterns)
    for one in CHECKS.values():
        if short and one.is_long:
            continue
        if not wanted or any(one.id == p or one.id.startswith(f"{p}.") for p in wanted):
            yield one


def run_check(one: Check, case: Case) -> Result:
    """Runs a check; whatever goes wrong is its result."""
    status, seen = _outcome(one, case)
    commands = case.hub.reproduction() if status == "fail" else []
    return Result(one.id, one.title, one.source, status, seen, commands)


def _outcome(one: Check, case: Case) -> tuple[Status, str]:
    adapter = case.hub.adapter
    for need in one.needs:
        reason = adapter.missing(need)
        if reason is not None:
            return "not supported", reason
    case.hub.begin(one.id)
    try:
        return "pass", one.run(case) or ""
    except Failed as error:
        return "fail", str(error)
    except NotSupported as error:
        return "not supported", str(error)
    except NotTested as error:
        return "not tested", str(error)
    except (ProtocolError, OSError) as error:
        return "fail", str(error) or type(error).__name__
    finally:
        case.hub.hang_up()
