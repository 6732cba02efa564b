"""What a plan asks of its connections: slow ones, visitors that come and go, their topics, tokens,
addresses and pace."""

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fastsse import stamp
from fastsse.swarm import Crew, Plan, _swarm
from fastsse.swarm.addresses import Address
from tests.swarm.conftest import (
    PLAIN_HEAD,
    TIMEOUT_S,
    RunningSwarm,
    ScriptedServer,
    hold,
    numbered,
    stamped,
)

Serve = Callable[..., ScriptedServer]
Start = Callable[..., RunningSwarm]


def stay_open(connection: socket.socket, head: bytes, number: int) -> None:
    """A stream without events."""
    connection.sendall(PLAIN_HEAD)
    hold(connection)


def test_slow_clients_never_read_and_do_not_count_as_fast_ones(serve: Serve, swarm: Start) -> None:
    def flood(connection: socket.socket, head: bytes, number: int) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        connection.sendall(PLAIN_HEAD + stamped(1) * 20_000)

    running = swarm(serve(flood), 2, slow_share=0.5, slow_buffer_bytes=4096, reconnects=False)
    found = running.until(end_ended=1)
    assert (found["slow"], found["events"], found["events_slow"]) == (1, 20_000, 0)
    assert running.stop()["end_reset"] == 0


def test_slow_clients_may_read_a_little(serve: Serve, swarm: Start) -> None:
    def some(connection: socket.socket, head: bytes, number: int) -> None:
        connection.sendall(PLAIN_HEAD + b"".join(map(numbered, range(1, 11))))
        hold(connection)

    found = swarm(serve(some), 1, slow_share=1, slow_bytes_per_s=5000).until(events_slow=10)
    assert found["events"] == found.measures["latency"].count == 0
    assert found["lost"] == 0


def test_churn_brings_new_visitors_and_keeps_the_number(serve: Serve, swarm: Start) -> None:
    def stream(connection: socket.socket, head: bytes, number: int) -> None:
        connection.sendall(PLAIN_HEAD + b"id: 5-5\n\n")
        hold(connection)

    server = serve(stream)
    running = swarm(server, 5, churn_per_s=200)
    running.until(churned=20, streams=25)
    found = running.stop()
    assert found["resumed"] == 0
    assert found["stream"] + found["waiting"] + found["head"] + found["connecting"] == 5
    assert not any(b"Last-Event-ID" in request for request in server.requests)


def test_streams_that_are_cut_resume_at_once(serve: Serve, swarm: Start) -> None:
    def stream(connection: socket.socket, head: bytes, number: int) -> None:
        connection.sendall(PLAIN_HEAD + b"id: 5-%d\n\n" % number)
        hold(connection)

    server = serve(stream)
    running = swarm(server, 4)
    running.until(streams=4)
    running.order("cut", 3)
    found = running.until(resumed=3)
    assert found["cut"] == 3
    assert sum(b"Last-Event-ID: 5-" in request for request in server.requests) == 3


def test_each_connection_asks_for_its_own_topic(serve: Serve, swarm: Start) -> None:
    server = serve(stay_open)
    swarm(server, 12, ("user/{n}", "g{n%5}"), first_number=100).until(streams=12)
    lines = sorted(request.split(b"\r\n")[0] for request in server.requests)
    assert lines == [
        b"GET /events?topic=user%%2F%d&topic=g%d HTTP/1.1" % (n, n % 5) for n in range(100, 112)
    ]


def test_each_connection_of_each_process_sends_its_own_token(serve: Serve, tmp_path: Path) -> None:
    server = serve(stay_open)
    tokens = [b"a", b"bb." + b"c" * 7_000, b"d-_=", b"e"]
    path = tmp_path / "tokens"
    path.write_bytes(b"\n".join(tokens))
    plan = Plan(
        url=f"http://127.0.0.1:{server.port}/events?who={{n}}",
        connections=6,
        processes=2,
        tokens_path=str(path),
    )
    with Crew(plan) as crew:
        assert crew.wait_until_settled(60)
        assert crew.figures()["streams"] == 6
    found = {
        int(head.split(b"who=")[1].split()[0]): head.split(b"Authorization: Bearer ")[1].split()[0]
        for head in server.requests
    }
    assert found == {number: tokens[number % 4] for number in range(6)}


def test_a_place_for_a_value_without_values_is_refused() -> None:
    with pytest.raises(ValueError, match="there are none"):
        _swarm.Swarm(
            bytearray(_swarm.BLOCK_BYTES),
            connections=1,
            target=Address(socket.AF_INET, "127.0.0.1", 9).packed,
            family=socket.AF_INET,
            request=[(b"x", _swarm.VALUE), (b"y", 0)],
        )


def test_connections_come_from_the_given_addresses_in_turn(serve: Serve, swarm: Start) -> None:
    server = serve(stay_open)
    sources = [Address(socket.AF_INET, f"127.9.9.{i}", 0).packed for i in (1, 2, 3)]
    swarm(server, 9, sources=sources).until(streams=9)
    assert sorted(server.peers) == sorted(f"127.9.9.{i}" for i in (1, 2, 3) * 3)


def test_new_connections_keep_to_the_pace(serve: Serve, swarm: Start) -> None:
    server = serve(stay_open)
    began = time.monotonic()
    running = swarm(server, 30, connects_per_s=100)
    running.until(streams=30)
    assert time.monotonic() - began >= 0.28


def test_an_event_for_all_is_followed_to_its_last_client(serve: Serve, swarm: Start) -> None:
    def stream(connection: socket.socket, head: bytes, number: int) -> None:
        connection.sendall(PLAIN_HEAD)
        turns[number].wait(TIMEOUT_S)
        connection.sendall(stamped(1, due_us=stamps[0]))
        hold(connection)

    turns = [threading.Event() for _ in range(3)]
    stamps: list[int] = []
    running = swarm(serve(stream), 3)
    running.until(stream=3)
    stamps.append(stamp.now_us())
    for number, turn in enumerate(turns):
        turn.set()
        # So the next one's event is sent later than this one's was read, by so much at least.
        running.until(events=number + 1)
        time.sleep(0.05)
    found = running.figures
    (first_us,) = found.measures["first"].percentiles_us(50)
    (last_us,) = found.measures["completion"].percentiles_us(50)
    assert found.measures["completion"].count == 1
    assert last_us - first_us >= 80_000
