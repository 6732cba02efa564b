"""What one connection of the swarm does is what a browser's EventSource does, and is counted."""

import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fastsse import stamp
from fastsse.swarm import Crew, Plan, _swarm
from fastsse.swarm.addresses import Address
from tests.swarm.conftest import (
    CHUNKED_HEAD,
    PLAIN_HEAD,
    TIMEOUT_S,
    RunningSwarm,
    ScriptedServer,
    chunk,
)

Serve = Callable[..., ScriptedServer]
Start = Callable[..., RunningSwarm]


def stamped(count: int, source: int = 1, due_us: int | None = None) -> bytes:
    data = stamp.encode(stamp.Stamp(due_us or stamp.now_us(), source, count), 128)
    return b"data: %s\n\n" % data


def numbered(number: int) -> bytes:
    return b"id: 1700000000000-%d\n" % number + stamped(number)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def hold(connection: socket.socket) -> None:
    """Waits until the client goes away."""
    while connection.recv(4096):
        pass


def test_every_event_is_counted_however_the_stream_is_cut(serve: Serve, swarm: Start) -> None:
    body = b": hello\nretry: 10\nid: 1700000000000-0\n\n" + b"".join(map(numbered, range(1, 21)))
    wire = CHUNKED_HEAD + chunk(body[:100]) + chunk(body[100:]) + b"0\r\n\r\n"

    def byte_by_byte(connection: socket.socket, head: bytes, number: int) -> None:
        for i in range(len(wire)):
            connection.send(wire[i : i + 1])

    found = swarm(serve(byte_by_byte), reconnects=False).until(end_ended=1)
    assert found["events"] == found["stamped"] == found["counted"] == 20
    assert found["data_bytes"] == 20 * 128
    assert found["bytes"] == len(wire)
    assert found.measures["latency"].count + found["replayed"] == 20
    assert [found[name] for name in ("lost", "repeated", "late")] == [0, 0, 0]
    assert [found[name] for name in ("id_repeated", "id_disordered")] == [0, 0]


def test_a_large_event_among_small_ones_arrives_whole(serve: Serve, swarm: Start) -> None:
    def large(connection: socket.socket, head: bytes, number: int) -> None:
        big = b"data: " + b"x" * (3 << 20) + b"\n\n"
        connection.sendall(CHUNKED_HEAD + chunk(numbered(1)) + chunk(big) + chunk(numbered(2)))
        hold(connection)

    found = swarm(serve(large)).until(events=3)
    assert found["data_bytes"] == (3 << 20) + 2 * 128


def test_latency_is_from_the_due_time_to_the_read(serve: Serve, swarm: Start) -> None:
    def late(connection: socket.socket, head: bytes, number: int) -> None:
        connection.sendall(PLAIN_HEAD)
        time.sleep(0.1)
        connection.sendall(stamped(1, due_us=stamp.now_us() - 50_000))
        hold(connection)

    began_us = stamp.now_us()
    found = swarm(serve(late)).until(stamped=1)
    (latency_us,) = found.measures["latency"].percentiles_us(50)
    assert 50_000 <= latency_us < stamp.now_us() - began_us + 50_000


def test_an_event_older_than_its_connection_is_a_replay_and_not_late(
    serve: Serve, swarm: Start
) -> None:
    def replay(connection: socket.socket, head: bytes, number: int) -> None:
        connection.sendall(PLAIN_HEAD + stamped(1, due_us=stamp.now_us() - 60_000_000))
        hold(connection)

    found = swarm(serve(replay)).until(replayed=1)
    assert found.measures["latency"].count == 0
    assert found.measures["replay"].count == 1


def test_an_event_from_the_future_is_counted_as_early(serve: Serve, swarm: Start) -> None:
    def early(connection: socket.socket, head: bytes, number: int) -> None:
        connection.sendall(PLAIN_HEAD + stamped(1, due_us=stamp.now_us() + 60_000_000))
        hold(connection)

    found = swarm(serve(early)).until(early=1)
    assert found.measures["latency"].percentiles_us(100) == [0]


def test_gaps_repeats_and_disorder_are_distinguished(serve: Serve, swarm: Start) -> None:
    def faulty(connection: socket.socket, head: bytes, number: int) -> None:
        events = b"".join(map(numbered, (1, 2, 5, 5, 4, 6)))
        gap = b'event: fastsse.gap\nid: 1700000000000-8\ndata: {"reason":"evicted"}\n\n'
        connection.sendall(PLAIN_HEAD + events + gap + numbered(9))
        hold(connection)

    found = swarm(serve(faulty)).until(events=7)
    assert (found["lost"], found["late"], found["repeated"]) == (2, 1, 1)
    assert (found["id_repeated"], found["id_disordered"]) == (1, 1)
    assert (found["gaps_announced"], found["lost_announced"]) == (1, 2)


def test_order_is_judged_over_reconnects_too(serve: Serve, swarm: Start) -> None:
    def resume_badly(connection: socket.socket, head: bytes, number: int) -> None:
        again = (1, 2) if number == 0 else (2, 4)
        connection.sendall(PLAIN_HEAD + b"retry: 0\n" + b"".join(map(numbered, again)))
        if number:
            hold(connection)

    found = swarm(serve(resume_badly)).until(events=4)
    assert (found["repeated"], found["id_repeated"], found["lost"]) == (1, 1, 1)


def test_a_position_is_sent_back_as_it_came(serve: Serve, swarm: Start) -> None:
    def once(connection: socket.socket, head: bytes, number: int) -> None:
        connection.sendall(PLAIN_HEAD + b"retry: 0\nid: 1700000000000-7\n\n")
        if number:
            hold(connection)

    server = serve(once)
    found = swarm(server).until(resumed=1)
    assert b"Last-Event-ID" not in server.requests[0]
    assert b"\r\nLast-Event-ID: 1700000000000-7\r\n\r\n" in server.requests[1]
    assert found["end_ended"] == 1
    assert found.measures["reconnect"].count == 1


@pytest.mark.parametrize("id", [b"abc", b"01-2", "ä-ö".encode(), b"1-2-3", b"9" * 25 + b"-1"])
def test_any_other_id_is_sent_back_as_it_came(serve: Serve, swarm: Start, id: bytes) -> None:
    def once(connection: socket.socket, head: bytes, number: int) -> None:
        connection.sendall(PLAIN_HEAD + b"retry: 0\nid: 1-1\nid: %s\ndata: x\n\n" % id)
        if number:
            hold(connection)

    server = serve(once)
    swarm(server).until(resumed=1)
    assert b"\r\nLast-Event-ID: %s\r\n\r\n" % id in server.requests[1]


def test_an_empty_id_forgets_the_last_one(serve: Serve, swarm: Start) -> None:
    def once(connection: socket.socket, head: bytes, number: int) -> None:
        connection.sendall(PLAIN_HEAD + b"retry: 0\nid: 5-5\n\nid\n\n")
        if number:
            hold(connection)

    server = serve(once)
    swarm(server).until(resumed=1)
    assert b"Last-Event-ID" not in server.requests[1]


def test_an_id_of_an_unfinished_event_is_not_sent_back(serve: Serve, swarm: Start) -> None:
    def once(connection: socket.socket, head: bytes, number: int) -> None:
        connection.sendall(PLAIN_HEAD + b"retry: 0\nid: 5-5\n\nid: 6-6\ndata: cut he")
        if number:
            hold(connection)

    server = serve(once)
    assert swarm(server).until(resumed=1)["events"] == 0
    assert b"Last-Event-ID: 5-5\r\n" in server.requests[1]


def test_a_stream_comes_back_after_the_time_that_the_server_said(
    serve: Serve, swarm: Start
) -> None:
    def once(connection: socket.socket, head: bytes, number: int) -> None:
        connection.sendall(PLAIN_HEAD + b"retry: 150\n\n")
        if number:
            hold(connection)

    found = swarm(serve(once)).until(resumed=1)
    (waited_us,) = found.measures["reconnect"].percentiles_us(50)
    assert waited_us >= 150_000


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        (PLAIN_HEAD + b"data: x\n\n", "end_ended"),
        (CHUNKED_HEAD + chunk(b"data: x\n\n") + b"0\r\n\r\n", "end_ended"),
        (CHUNKED_HEAD + chunk(b"data: x\n\n"), "end_eof"),
        (b"", "end_eof"),
        (CHUNKED_HEAD + b"zz\r\n", "end_bad_stream"),
    ],
)
def test_what_ended_a_stream_is_counted_and_it_comes_back(
    serve: Serve, swarm: Start, wire: bytes, reason: str
) -> None:
    def end(connection: socket.socket, head: bytes, number: int) -> None:
        connection.sendall(wire if number == 0 else PLAIN_HEAD)
        if number:
            hold(connection)

    found = swarm(serve(end), default_retry_s=0).until(**{reason: 1}, streams=1, stream=1)
    assert found[reason] == 1
    assert found["over"] == 0


def test_a_reset_is_counted_as_one_after_what_it_delivered(serve: Serve, swarm: Start) -> None:
    def end(connection: socket.socket, head: bytes, number: int) -> None:
        connection.sendall(PLAIN_HEAD + b"data: x\n\n")
        time.sleep(0.05)
        reset(connection)

    found = swarm(serve(end), reconnects=False).until(end_reset=1)
    assert found["events"] == 1
    assert found["over"] == 1


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", "status_204"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "status_5xx"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "status_4xx"),
        (b"HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n", "status_3xx"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n", "end_bad_response"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "end_bad_response"),
        (b"HTTP/1.1 200 OK\r\nContent-Ty", "end_bad_response"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, "end_too_large"),
    ],
)
def test_an_answer_that_is_no_stream_ends_it_for_good(
    serve: Serve, swarm: Start, head: bytes, status: str
) -> None:
    def refuse(connection: socket.socket, request: bytes, number: int) -> None:
        connection.sendall(head)

    found = swarm(serve(refuse), default_retry_s=0).until(over=1)
    assert found[status] == 1
    assert found["connects"] == 1


def test_a_refused_connection_is_tried_again(serve: Serve, swarm: Start) -> None:
    server = serve(lambda connection, head, number: None)
    server.close()
    found = swarm(server, default_retry_s=0.01).until(end_refused=3)
    assert found["over"] == 0


def test_a_server_that_never_answers_is_given_up_in_time(serve: Serve, swarm: Start) -> None:
    server = serve(lambda connection, head, number: hold(connection))
    found = swarm(server, open_timeout_s=0.05, reconnects=False).until(over=1)
    assert found["end_timed_out"] == 1


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
    def stream(connection: socket.socket, head: bytes, number: int) -> None:
        connection.sendall(PLAIN_HEAD)
        hold(connection)

    server = serve(stream)
    swarm(server, 12, ("user/{n}", "g{n%5}"), first_number=100).until(streams=12)
    lines = sorted(request.split(b"\r\n")[0] for request in server.requests)
    assert lines == [
        b"GET /events?topic=user%%2F%d&topic=g%d HTTP/1.1" % (n, n % 5) for n in range(100, 112)
    ]


def test_each_connection_of_each_process_sends_its_own_token(serve: Serve, tmp_path: Path) -> None:
    def stream(connection: socket.socket, head: bytes, number: int) -> None:
        connection.sendall(PLAIN_HEAD)
        hold(connection)

    server = serve(stream)
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
    def stream(connection: socket.socket, head: bytes, number: int) -> None:
        connection.sendall(PLAIN_HEAD)
        hold(connection)

    server = serve(stream)
    sources = [Address(socket.AF_INET, f"127.9.9.{i}", 0).packed for i in (1, 2, 3)]
    swarm(server, 9, sources=sources).until(streams=9)
    assert sorted(server.peers) == sorted(f"127.9.9.{i}" for i in (1, 2, 3) * 3)


def test_new_connections_keep_to_the_pace(serve: Serve, swarm: Start) -> None:
    def stream(connection: socket.socket, head: bytes, number: int) -> None:
        connection.sendall(PLAIN_HEAD)
        hold(connection)

    server = serve(stream)
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
