"""The cases of `make bench`: what the README promises, measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bench.cases import (
    arrivals,
    fanout,
    features,
    idle,
    ladder,
    neighbour,
    nodes,
    operators,
    publishing,
    rights,
    single,
    slow,
    workers,
)
from bench.cases.case import Result, Setup

__all__ = ["CASES", "Result", "Setup", "run_cases"]

CASES: dict[str, Callable[[Setup], Result]] = {
    "steady": fanout.steady,
    "saturation": fanout.saturation,
    "wide": fanout.wide,
    "ladder": ladder.ladder,
    "own-topics": fanout.own_topics,
    "idle-shared": idle.idle_shared,
    "idle-own": idle.idle_own,
    "connect": arrivals.connect_storm,
    "resume": arrivals.resume_storm,
    "churn": arrivals.churn,
    "publish": publishing.publish_single,
    "publish-ndjson": publishing.publish_batch,
    "publish-written": publishing.publish_written,
    "publish-synced": publishing.publish_synced,
    "publish-16": single.publish_16,
    "publish-64": single.publish_64,
    "publish-256": single.publish_256,
    "publish-kinds": single.publish_kinds,
    "publish-redis": nodes.publish_redis,
    "redis-ceiling": nodes.ceiling,
    "nodes": nodes.across,
    "nodes-in-reach": nodes.across_in_reach,
    "redis-outage": nodes.outage,
    "subscribe-token": rights.subscribe_with_tokens,
    "publish-token": rights.publish_with_token,
    "workers-publish": workers.publishing,
    "workers-deliver": workers.delivering,
    "slow": slow.never_read,
    "slow-10k": slow.read_slowly,
    "neighbour": neighbour.neighbour,
    "console": operators.one_console,
    "console-100": operators.many_consoles,
    "console-lists": operators.console_lists,
    "tracing": operators.tracing,
    "envelope": features.envelope,
    "envelope-once": features.envelope_once,
    "filter-none": features.filter_none,
    "filter-many": features.filter_many,
    "max-rate": features.max_rate,
    "last-each": features.connects,
}


def run_cases(setup: Setup, names: list[str]) -> Iterator[Result]:
    """Carries out the cases named, in the order of CASES."""
    for name, case in CASES.items():
        if name in names or not names:
            result = case(setup)
            if setup.quick:
                result.met = None
            yield result
