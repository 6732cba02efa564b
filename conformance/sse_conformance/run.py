"""A run of the suite: a hub, the selected checks, and what came of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import sse_conformance.checks  # noqa: F401  (registers the checks)
from sse_conformance import __version__
from sse_conformance.adapter import Adapter
from sse_conformance.hub import Hub
from sse_conformance.registry import Case, Result, Status, run_check, selected
from sse_conformance.server import OnlyAddress, Server, Started, versions

_SERVED = "a running server, of which the suite has the address alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The results of one hub.

    Attributes:
        label: distinguishes several runs of one adapter, such as its store.
        seconds: how long the run took.
    """

    hub: str
    title: str
    label: str
    versions: dict[str, str]
    settings: str
    documentation: str
    date: str
    suite: str = __version__
    is_short: bool
    seconds: float
    results: list[Result] = field(default_factory=list)

    def count(self, status: Status) -> int:
        return sum(result.status == status for result in self.results)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


def read_run(path: Path) -> Run:
    """A run from the JSON that it was written as."""
    table: dict[str, Any] = json.loads(path.read_text("utf-8"))
    results = [Result(**result) for result in table.pop("results")]
    return Run(results=results, **table)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is run.

    Attributes:
        address: host and port of a running hub; None starts one.
        variant: the variant of `[server]` that is started.
        only: ids of checks or names of groups; empty: all.
    """

    address: tuple[str, int] | None = None
    variant: str = ""
    only: tuple[str, ...] = ()
    is_short: bool = False
    node_modules: str = ""
    label: str = ""


def run(adapter: Adapter, options: Options, report: Callable[[Result], object] = bool) -> Run:
    """Runs the checks one after another; `report` gets each result at once."""
    salt = f"-{int(time.time() * 1000):x}"
    begun = time.monotonic()
    with ExitStack() as stack:
        if options.address is not None:
            hub = Hub(*options.address, adapter, salt=salt)
            case = Case(hub, OnlyAddress(), options.is_short, options.node_modules)
        else:
            server = stack.enter_context(Server(adapter, options.variant, salt))
            servers = Started(adapter, salt)
            case = Case(server.hub(), servers, options.is_short, options.node_modules)
        results = list(_results(case, options.only, report))
    return Run(
        hub=adapter.name, title=adapter.title, label=options.label,
        settings=_SERVED if options.address else adapter.settings,
        versions=versions(adapter) if options.address is None else {},
        documentation=adapter.documentation, date=time.strftime("%Y-%m-%d"),
        is_short=options.is_short, seconds=round(time.monotonic() - begun, 1), results=results,
    )  # fmt: skip


def _results(
    case: Case, only: Iterable[str], report: Callable[[Result], object]
) -> Iterable[Result]:
    for one in selected(only, short=case.is_short):
        result = run_check(one, case)
        report(result)
        yield result
