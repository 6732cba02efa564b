"""What a stream costs inside an ASGI application: `python -m bench.mounted [--rounds 3]`.

Each server runs alone on a core, one after the other in each round, the first of them another one
each time. Printed are medians with the least and the greatest, and the ratio to `fastsse serve` of
the same round.
"""

from __future__ import annotations

import socket
import statistics
import time
from contextlib import ExitStack
from urllib.parse import urlsplit

import click

from bench.load import Sample
from bench.mounted import MOUNT, PEERS
from bench.peers import own
from bench.peers.cases import Run, fan_out
from bench.peers.peer import Peer
from bench.peers.process import PeerServer
from fastsse.swarm import Crew

_TOPIC = "news"
_EVENTS = f"/events?topic={_TOPIC}"
_HEAD = "GET {} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
_STREAMS, _SECONDS = 500, 3
# Events a second. A server with a task for each stream carries fewer, and its figure does not
# depend on them; native ones need many, because CPU is counted in steps of 10 ms.
_NATIVE_RATE, _TASK_RATE = 80, 5
_OPENED, _FEW, _IDLE = 2_000, 500, 4_000
_SETTLE_S = 1
# Names of figures, with their digits.
DELIVERY, OPENED, REQUEST, IDLE = (
    "µs CPU a delivery",
    "µs CPU of a new stream",
    "µs CPU of a request that the application answers",
    "bytes of an idle stream",
)
FIGURES = {DELIVERY: 2, OPENED: 0, REQUEST: 0, IDLE: 0}
# Of each server and figure: the value of each round that has one.
Found = dict[str, dict[str, dict[int, float]]]


def deliver(run: Run, peer: Peer) -> Sample:
    """CPU of a delivery. Raises RuntimeError if some were not delivered."""
    rate = _NATIVE_RATE if peer in (own.PEER, MOUNT) else _TASK_RATE
    case = fan_out("mounted", _STREAMS, rate, _SECONDS)
    sample = case.measure(run, peer)
    if sample["delivered"] < sample["expected"]:
        raise RuntimeError(f"{peer.name} delivered {sample['delivered_share']:.1%}")
    return {DELIVERY: sample["server_cpu_us"]}


def open_streams(run: Run, peer: Peer) -> Sample:
    """CPU of a new stream on a connection of its own, one after the other; for the mount also that
    of a request which the application answers, on as many connections."""
    count, found = run.count(_OPENED), {}
    with run.server(peer) as server:
        found[OPENED] = _cpu_us_of(server, _EVENTS, count)
        if peer is MOUNT:
            found[REQUEST] = _cpu_us_of(server, "/other", count)
    return found


def hold_streams(run: Run, peer: Peer) -> Sample:
    """Memory of an idle stream: what many add to a few (Pss)."""
    few, many = run.count(_FEW), run.count(_IDLE)
    with run.server(peer) as server, Crew(run.plan(server, few, "other")) as first:
        first.wait_until_settled(60)
        time.sleep(run.seconds(_SETTLE_S))
        before = server.memory()["pss"]
        with Crew(run.plan(server, many)) as crew:
            crew.wait_until_settled(60)
            time.sleep(run.seconds(_SETTLE_S))
            return {IDLE: (server.memory()["pss"] - before) / many}


def _cpu_us_of(server: PeerServer, target: str, count: int) -> float:
    """CPU of an answer; its connections are closed after it was read."""
    port = urlsplit(server.url).port or 0
    with ExitStack() as stack:
        _ask(stack, port, target, count // 10)
        before = server.cpu_us()
        _ask(stack, port, target, count)
        return (server.cpu_us() - before) / count


def _ask(stack: ExitStack, port: int, target: str, count: int) -> None:
    """Sends a request on so many connections, each when the one before is answered."""
    request = _HEAD.format(target).encode()
    for _ in range(count):
        sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        sock.sendall(request)
        if not sock.recv(4096).startswith(b"HTTP/1.1 20"):
            raise RuntimeError(f"{target} was refused")


def measure(run: Run, rounds: int) -> Found:
    """The figures of each server. What one can't do in a round is said, and has no value."""
    found: Found = {peer.name: {} for peer in PEERS}
    for turn in range(rounds):
        at = turn % len(PEERS)
        for case in (deliver, open_streams, hold_streams):
            for peer in PEERS[at:] + PEERS[:at]:
                try:
                    figures = case(run, peer)
                except RuntimeError as error:
                    click.echo(f"{peer.title}: {error}", err=True)
                    continue
                for name, value in figures.items():
                    found[peer.name].setdefault(name, {})[turn] = value
    return found


def shown(found: Found) -> list[str]:
    """A line for each figure of each server, and the hand-over: what a new stream costs more than a
    request of the same server."""
    lines = []
    for peer in PEERS:
        figures = found[peer.name]
        for name, values in figures.items():
            line = f"{peer.title}: {name} {_spread(list(values.values()), FIGURES[name])}"
            ours = found[own.PEER.name].get(name, {})
            ratios = [value / ours[at] for at, value in values.items() if ours.get(at, 0) > 0]
            if ratios and peer is not own.PEER:
                line += f", {_spread(ratios, 2)} x fastsse serve"
            lines.append(line)
        if REQUEST in figures:
            answered = figures[REQUEST]
            more = [opened - answered[at] for at, opened in figures[OPENED].items()]
            lines.append(f"{peer.title}: µs CPU of the hand-over {_spread(more, 0)}")
    return lines


def _spread(values: list[float], digits: int) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


@click.command()
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--quick", is_flag=True, help="Small: shows that it runs, measures nothing.")
def main(rounds: int, quick: bool) -> None:
    """Measures the servers, each on core 0 with its clients on core 1."""
    missing = [f"{peer.name}: {lack}" for peer in PEERS if (lack := peer.missing())]
    if missing:
        raise click.ClickException(f"Not installed: {'; '.join(missing)}. {MOUNT.install}")
    run = Run(quick=quick, server_cpu=0, client_cpu=1)
    for line in shown(measure(run, rounds)):
        click.echo(line)


if __name__ == "__main__":
    main()
