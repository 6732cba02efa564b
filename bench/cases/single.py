"""What one publish a request costs: next to nchan and a bare C loop, and by what it carries."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack

from bench import bare
from bench.cases.case import Result, Setup
from bench.cases.publishing import closed_loop
from bench.cases.rights import token
from bench.load import Sample
from bench.peers.nchan import PEER as NCHAN
from bench.peers.peer import Peer
from bench.peers.process import PeerServer
from bench.server import Server, UnderTest

_RUN_S = 1.5
_ROUNDS = 3
# CPU of the bare loop that one publish may take as a multiple. The loop stores nothing and gives no
# ids.
_BARE_MOST = 1.5
# The least of all kinds. An event of ten topics goes into ten logs.
_KIND_LEAST = 0.9

BARE = Peer(
    name="bare-publish",
    title="bare C loop",
    command=lambda directory: [str(bare.program("bare_publish"))],
    install="a C compiler",
    settings="",
    missing=lambda: "",
    versions=dict,
)


class _Peer(AbstractContextManager[UnderTest]):
    """A peer as a server under test; its path is that of fastsse."""

    def __init__(self, peer: Peer, cpu: int) -> None:
        self._server = PeerServer(peer, cpu)

    def __enter__(self) -> UnderTest:
        server = self._server.__enter__()
        server.url += "/events"
        return server

    def __exit__(self, *error: object) -> None:
        self._server.__exit__(*error)  # type: ignore[arg-type]


def _interleaved(
    setup: Setup, connections: int, servers: Mapping[str, AbstractContextManager[UnderTest]]
) -> dict[str, Sample]:
    """The run of each server with the least CPU a publish, of some rounds in turn."""
    best: dict[str, Sample] = {}
    with ExitStack() as running:
        up = {name: running.enter_context(server) for name, server in servers.items()}
        for _ in range(1 if setup.quick else _ROUNDS):
            for name, server in up.items():
                sample = closed_loop(setup, server, connections, seconds=_RUN_S)
                least = best.setdefault(name, sample)
                if sample["server_cpu_us"] < least["server_cpu_us"]:
                    best[name] = sample
    return best


def _next_to_others(setup: Setup, connections: int) -> Result:
    samples = []
    for _ in range(setup.repeats):
        servers: dict[str, AbstractContextManager[UnderTest]] = {
            "fastsse": setup.server(),
            "bare": _Peer(BARE, setup.server_cpu),
        }
        if not NCHAN.missing():
            servers["nchan"] = _Peer(NCHAN, setup.server_cpu)
        found = _interleaved(setup, connections, servers)
        sample = found["fastsse"]
        for name in servers:
            sample[f"{name}_cpu_us"] = found[name]["server_cpu_us"]
            sample[f"{name}_a_second"] = found[name]["a_second"]
            sample[f"{name}_p50_ms"] = found[name]["answer_p50_ms"]
        sample["ratio"] = sample["server_cpu_us"] / max(0.01, sample["bare_cpu_us"])
        samples.append(sample)
    title = f"publish over {connections} keep-alive connections, next to a bare C loop, by CPU"
    result = Result(
        f"publish-{connections}", title, f"≤ {_BARE_MOST}", samples, ("ratio", "x bare")
    )
    result.is_fan_out = False
    result.met = result.median("ratio") <= _BARE_MOST
    result.notes = [
        f"{name}: {result.median(f'{name}_cpu_us'):.1f} µs of CPU a publish, "
        f"{result.median(f'{name}_a_second'):,.0f}/s, p50 {result.median(f'{name}_p50_ms'):.2f} ms"
        for name in ("fastsse", "nchan", "bare")
        if result.has(f"{name}_cpu_us")
    ]
    return result


def publish_16(setup: Setup) -> Result:
    return _next_to_others(setup, 16)


def publish_64(setup: Setup) -> Result:
    return _next_to_others(setup, 64)


def publish_256(setup: Setup) -> Result:
    return _next_to_others(setup, 256)


class _Asked(AbstractContextManager[UnderTest]):
    """A server with another query or headers in each publish."""

    def __init__(self, cpu: int, options: Sequence[str], query: str) -> None:
        self._server = Server(cpu, options)
        self._query = query

    def __enter__(self) -> UnderTest:
        server = self._server.__enter__()
        server.url += f"?{self._query}" if self._query else ""
        return server

    def __exit__(self, *error: object) -> None:
        self._server.__exit__(*error)  # type: ignore[arg-type]


def publish_kinds(setup: Setup) -> Result:
    """The same closed loop with what a publish may carry, to the plain one, by CPU."""
    secret = secrets.token_hex(32)
    bearer = (("Authorization", f"Bearer {token(secret)}"),)
    guarded = ("--jwt-key", secret)
    kinds: dict[str, tuple[Sequence[str], str, Sequence[tuple[str, str]]]] = {
        "plain": ((), "", ()),
        "token": (guarded, "", bearer),
        "private": ((), "private=true", ()),
        "topics": ((), "&".join(f"topic=t{n}" for n in range(9)), ()),
        "own id": ((), "id=order-17", ()),
    }
    samples = []
    for _ in range(setup.repeats):
        best: dict[str, Sample] = {}
        with ExitStack() as running:
            up = {
                name: running.enter_context(_Asked(setup.server_cpu, options, query))
                for name, (options, query, _) in kinds.items()
            }
            for _ in range(1 if setup.quick else _ROUNDS):
                for name, server in up.items():
                    sample = closed_loop(setup, server, 64, headers=kinds[name][2], seconds=_RUN_S)
                    least = best.setdefault(name, sample)
                    if sample["server_cpu_us"] < least["server_cpu_us"]:
                        best[name] = sample
        plain = best["plain"]
        for name in kinds:
            plain[f"{name} ratio"] = plain["server_cpu_us"] / max(0.01, best[name]["server_cpu_us"])
        plain["ratio"] = min(plain[f"{name} ratio"] for name in kinds)
        samples.append(plain)
    title = "publishes with a token, private, with 10 topics, with an own id, to plain ones, by CPU"
    result = Result("publish-kinds", title, f"≥ {_KIND_LEAST}", samples, ("ratio", "x"))
    result.is_fan_out = False
    result.met = result.median("ratio") >= _KIND_LEAST
    result.notes = [f"{name} {result.median(f'{name} ratio'):.2f}" for name in kinds]
    return result
