"""The connection that readers and publishers are made of."""

import socket
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from loadtests.wire import BadAnswer, Wire, plain
from tests.swarm.conftest import (
    CHUNKED_HEAD,
    PLAIN_HEAD,
    Script,
    ScriptedServer,
    chunk,
    serve,
    wait_for,
)

__all__ = ["serve"]
Serve = Callable[[Script], ScriptedServer]


def wire_to(server: ScriptedServer, **more: int) -> Wire:
    return Wire(urlsplit(f"http://127.0.0.1:{server.port}"), **more)


def read_all(wire: Wire) -> bytes:
    body = b""
    while piece := wire.read():
        body += piece
    return body


def test_a_chunked_stream_is_read_however_it_is_cut(serve: Serve) -> None:
    stream = CHUNKED_HEAD + chunk(b"data: 1\n\n") + chunk(b"data: 2\n\n") + b"0\r\n\r\n"

    def byte_by_byte(connection: socket.socket, head: bytes, number: int) -> None:
        for i in range(len(stream)):
            connection.sendall(stream[i : i + 1])

    wire = wire_to(serve(byte_by_byte))
    wire.send("GET", "/events?topic=a")
    assert wire.status() == 200
    assert read_all(wire) == b"data: 1\n\ndata: 2\n\n"
    assert wire.whole
    wire.close()


def test_a_stream_that_ends_with_its_connection_is_read_to_the_end(serve: Serve) -> None:
    def script(connection: socket.socket, head: bytes, number: int) -> None:
        connection.sendall(PLAIN_HEAD + b"data: 1\n\n")

    wire = wire_to(serve(script))
    wire.send("GET", "/")
    assert (wire.status(), read_all(wire)) == (200, b"data: 1\n\n")
    assert not wire.whole
    wire.close()


def test_requests_follow_one_another_on_one_connection(serve: Serve) -> None:
    def script(connection: socket.socket, head: bytes, number: int) -> None:
        for _ in range(2):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            connection.recv(1000)

    server = serve(script)
    wire = wire_to(server)
    for _ in range(2):
        wire.send("POST", "/events?topic=a", (("X-Tried", "1"),), b"x")
        assert (wire.status(), read_all(wire)) == (200, b"{}")
        assert wire.whole
    wire.close()
    assert b"Content-Length: 1\r\n" in server.requests[0]
    assert b"X-Tried: 1\r\n" in server.requests[0]


@pytest.mark.parametrize(
    ("answer", "error"), [(b"no http\r\n\r\n", BadAnswer), (b"", ConnectionResetError)]
)
def test_invalid_answers_are_distinguished_from_valid_ones(
    serve: Serve, answer: bytes, error: type[Exception]
) -> None:
    wire = wire_to(serve(lambda connection, head, number: connection.sendall(answer)))
    wire.send("GET", "/")
    with pytest.raises(error):
        wire.status()
    wire.close()


def test_a_connection_that_the_other_side_closed_is_seen_without_reading(serve: Serve) -> None:
    done = threading.Event()

    def script(connection: socket.socket, head: bytes, number: int) -> None:
        connection.sendall(PLAIN_HEAD)
        done.wait(10)

    wire = wire_to(serve(script), receive_buffer_bytes=4096)
    wire.send("GET", "/")
    assert wire.status() == 200
    assert wire.established
    done.set()
    wait_for(lambda: not wire.established)
    wire.close(reset=True)
    wire.close(reset=True)


def test_a_missing_server_is_an_os_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(OSError, match="refused"):
        Wire(urlsplit(f"http://127.0.0.1:{port}"))


def test_equal_failures_have_equal_texts() -> None:
    failures = [ConnectionRefusedError(111, "Connection refused", f"peer {n}") for n in (1, 2)]
    assert len({repr(plain(failure)) for failure in failures}) == 1
