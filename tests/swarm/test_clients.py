"""What one connection of the swarm does is what a browser's EventSource does, and is counted."""

import socket
import struct
import time
from collections.abc import Callable

import pytest

from fastsse import stamp
from tests.swarm.conftest import (
    CHUNKED_HEAD,
    PLAIN_HEAD,
    RunningSwarm,
    ScriptedServer,
    chunk,
    hold,
    numbered,
    stamped,
)

Serve = Callable[..., ScriptedServer]
Start = Callable[..., RunningSwarm]


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


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
