"""What a run is to do, and how it is shared out over processes."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from fastsse.swarm import machine_limits, tokens
from fastsse.swarm.addresses import Address, resolve, source_addresses
from fastsse.swarm.refusal import Refusal
from fastsse.swarm.request_template import request_head, split_at_numbers

CONNECTIONS_A_PROCESS = 10_000
"""How many one loop carries well while events flow, when there are cores for more loops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A swarm run. Times in seconds, rates per second, all of them for the whole run.

    Attributes:
        url: the stream; `/events` when it has no path.
        connections: how many are held at once.
        topics: added to the query; `{n}` is the connection's number, `{n%100}` its remainder.
        headers: added to each request; `{n}` works here too.
        tokens_path: a file with a token a line; connection n sends line n, modulo their count.
            None: no tokens.
        connect_rate: new connections a second; 0: as fast as answers come.
        max_opening: connections at most that are under way at once.
        processes: 0: as many as descriptors and cores ask for.
        sources: addresses or networks to connect from.
        cpus: cores that the processes may use; none: any.
        slow_share: 0 … 1 that read `slow_bytes_per_s` each (0: nothing).
        churn_rate: visitors who leave (and new ones who come) a second, once all are there.
        reconnects: whether ended streams reconnect, as those of a browser do.
        own_target: the user answers for a target that is not this machine.
    """

    url: str
    connections: int
    topics: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    tokens_path: str | None = None
    connect_rate: float = 0
    max_opening: int = 512
    open_timeout_s: float = 30
    processes: int = 0
    sources: tuple[str, ...] = ()
    cpus: tuple[int, ...] = ()
    slow_share: float = 0
    slow_bytes_per_s: float = 0
    slow_buffer_bytes: int = 0
    churn_rate: float = 0
    reconnects: bool = True
    own_target: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one process does: the arguments of `fastsse._swarm.Swarm`, which gets the tokens."""

    connections: int
    first_number: int
    tokens_path: str | None
    target: bytes
    family: int
    sources: tuple[bytes, ...]
    request: tuple[tuple[bytes, int], ...]
    connects_per_s: float
    max_opening: int
    open_timeout_s: float
    reconnects: bool
    churn_per_s: float
    slow_share: float
    slow_bytes_per_s: float
    slow_buffer_bytes: int


def shares_of(plan: Plan) -> list[Share]:
    """Checks a plan against this machine and divides it.

    Raises:
        Refusal: it can't be carried out; the message says what to change.
    """
    _check_values(plan)
    if plan.tokens_path is not None:
        tokens.check(plan.tokens_path)
    url = urlsplit(plan.url)
    target = resolve(url)
    if not (target.is_loopback or plan.own_target):
        raise Refusal(
            f"{plan.url} is not on this machine. Load that was not asked for is an attack: "
            "if the target is yours, say so with --i-own-this-target."
        )
    sources = source_addresses(target, plan.sources, plan.connections)
    processes = plan.processes or _processes_for(plan)
    machine_limits.check(plan.connections, processes, len(sources), both_ends=target.is_loopback)
    head = request_head(url, plan.topics, plan.headers, plan.tokens_path is not None)
    return _divide(plan, target, sources, split_at_numbers(head), processes)


def _check_values(plan: Plan) -> None:
    if plan.connections < 1:
        raise Refusal("--connections must be at least 1.")
    if not 0 <= plan.slow_share <= 1:
        raise Refusal("--slow must be between 0% and 100%.")
    if min(plan.connect_rate, plan.churn_rate, plan.slow_bytes_per_s, plan.processes) < 0:
        raise Refusal("Rates and --processes can't be negative.")
    unknown = sorted(set(plan.cpus) - os.sched_getaffinity(0))
    if unknown:
        raise Refusal(f"--cpus {unknown[0]}: this process may use {_cpus_here()}.")


def _cpus_here() -> str:
    return ", ".join(map(str, sorted(os.sched_getaffinity(0))))


def _processes_for(plan: Plan) -> int:
    """As many as the descriptors need; more only if cores are free next to the server's."""
    cores = len(plan.cpus) or max(1, len(os.sched_getaffinity(0)) // 2)
    wanted = -(-plan.connections // CONNECTIONS_A_PROCESS)
    return max(machine_limits.processes_needed(plan.connections), min(cores, wanted))


def _divide(
    plan: Plan,
    target: Address,
    sources: list[Address],
    request: list[tuple[bytes, int]],
    processes: int,
) -> list[Share]:
    whole = Share(
        connections=plan.connections,
        first_number=0,
        tokens_path=plan.tokens_path,
        target=target.packed,
        family=int(target.family),
        sources=tuple(source.packed for source in sources),
        request=tuple(request),
        connects_per_s=plan.connect_rate / processes,
        max_opening=max(1, plan.max_opening // processes),
        open_timeout_s=plan.open_timeout_s,
        reconnects=plan.reconnects,
        churn_per_s=plan.churn_rate / processes,
        slow_share=plan.slow_share,
        slow_bytes_per_s=plan.slow_bytes_per_s,
        slow_buffer_bytes=plan.slow_buffer_bytes,
    )
    edges = [plan.connections * i // processes for i in range(processes + 1)]
    return [
        replace(whole, connections=after - first, first_number=first)
        for first, after in itertools.pairwise(edges)
    ]
