"""The open-loop publisher: its schedule does not bend, and it says what became of every request."""

import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from fastsse import stamp
from fastsse.swarm import OpenLoop, Refusal, Schedule
from tests.swarm.conftest import TIMEOUT_S, ScriptedServer, wait_for

Serve = Callable[..., ScriptedServer]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED_OK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"


class Posts:
    """Reads keep-alive POST requests and answers each; `answer` may be a function of its number."""

    def __init__(self, answer: bytes | Callable[[int], bytes]) -> None:
        self.answer = answer if callable(answer) else lambda number: answer
        self.bodies: list[bytes] = []
        self.heads: list[bytes] = []

    def __call__(self, connection: socket.socket, data: bytes, number: int) -> None:
        while True:
            while b"\r\n\r\n" not in data:
                more = connection.recv(65536)
                if not more:
                    return
                data += more
            head, _, data = data.partition(b"\r\n\r\n")
            length = int(head.rsplit(b"Content-Length: ", 1)[1])
            while len(data) < length:
                data += connection.recv(65536)
            self.heads.append(head)
            self.bodies.append(data[:length])
            data = data[length:]
            connection.sendall(self.answer(len(self.bodies)))


def schedule(server: ScriptedServer, **changes: Any) -> Schedule:
    values = {"url": f"http://127.0.0.1:{server.port}", "topics": ("t",), "duration_s": 0.2}
    return Schedule(**{**values, **changes})


def test_requests_keep_to_the_rate_and_say_when_they_were_due(serve: Serve) -> None:
    posts = Posts(OK)
    loop = OpenLoop(schedule(serve(posts), rate=100, duration_s=0.5))
    figures = loop.run()
    stamps = [stamp.decode(body) for body in posts.bodies]
    assert figures["requests"] == figures["accepted"] == figures["events_accepted"] == 50
    assert [s and s.due_us for s in stamps] == [loop.due_at_us + 10_000 * i for i in range(50)]
    assert [s and s.count for s in stamps] == list(range(1, 51))
    assert {len(body) for body in posts.bodies} == {128}
    assert posts.heads[0].startswith(b"POST /events?topic=t HTTP/1.1\r\nHost: 127.0.0.1:")
    assert [figures.measures[name].count for name in ("delay", "answer", "total")] == [50] * 3


def test_a_server_that_stalls_does_not_bend_the_schedule(serve: Serve) -> None:
    def stall(number: int) -> bytes:
        if number == 1:
            time.sleep(0.3)
        return OK

    posts = Posts(stall)
    loop = OpenLoop(schedule(serve(posts), rate=100, duration_s=0.2))
    figures = loop.run()
    last = stamp.decode(posts.bodies[-1])
    assert last is not None
    assert last.due_us == loop.due_at_us + 190_000
    assert figures["accepted"] == 20
    assert figures.measures["delay"].max_us() >= 250_000
    assert figures.measures["total"].percentiles_us(50)[0] >= 100_000


def test_what_was_never_sent_is_counted(serve: Serve) -> None:
    over = threading.Event()

    def silent(connection: socket.socket, data: bytes, number: int) -> None:
        over.wait(TIMEOUT_S)

    loop = OpenLoop(schedule(serve(silent), rate=100, duration_s=0.2, depth=3, patience_s=0.1))
    figures = loop.run()
    over.set()
    assert (figures["requests"], figures["unsent"], figures["accepted"]) == (3, 17, 0)


def test_a_refusal_is_counted_and_not_repeated(serve: Serve) -> None:
    def busy(number: int) -> bytes:
        return OK if number % 2 else b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"

    posts = Posts(busy)
    figures = OpenLoop(schedule(serve(posts), rate=100)).run()
    assert (figures["accepted"], figures["refused"], figures["last_status"]) == (10, 10, 503)
    assert len(posts.bodies) == 20


def test_a_lost_connection_leaves_its_requests_unknown_and_is_replaced(serve: Serve) -> None:
    class Hangs(Posts):
        def __call__(self, connection: socket.socket, data: bytes, number: int) -> None:
            if number:
                super().__call__(connection, data, number)

    posts = Hangs(OK)
    figures = OpenLoop(schedule(serve(posts), rate=100, duration_s=0.5)).run()
    assert (figures["unknown"], figures["connects"]) == (1, 2)
    assert figures["accepted"] == figures["requests"] - 1 == 49


def test_an_answer_that_closes_is_followed_by_a_new_connection(serve: Serve) -> None:
    posts = Posts(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    figures = OpenLoop(schedule(serve(posts), rate=50)).run()
    assert figures["accepted"] == 10
    assert figures["unknown"] == 0
    assert figures["connects"] >= 10


@pytest.mark.parametrize("answer", [OK, CHUNKED_OK, b"HTTP/1.1 204 No Content\r\n\r\n"])
def test_pipelined_requests_get_their_answers_in_order(serve: Serve, answer: bytes) -> None:
    posts = Posts(answer)
    # All due at once: as many are under way as may be.
    figures = OpenLoop(
        schedule(serve(posts), rate=100_000, depth=16, connections=2, duration_s=0.002)
    ).run()
    assert figures["accepted"] == figures["requests"] == len(posts.bodies) == 200
    assert figures["unknown"] == 0


def test_sources_and_counts_tell_connections_and_topics_apart(serve: Serve) -> None:
    posts = Posts(OK)
    OpenLoop(schedule(serve(posts), topics=("a", "b"), rate=120, connections=3)).run()
    counts: dict[int, list[int]] = {}
    for body in posts.bodies:
        found = stamp.decode(body)
        assert found is not None
        counts.setdefault(found.source, []).append(found.count)
    assert len(counts) == 6
    assert all(sorted(given) == [1, 2, 3, 4] for given in counts.values())


def test_batches_are_ndjson_with_the_topic_on_each_line(serve: Serve) -> None:
    posts = Posts(OK)
    topics = ('a"b', "c")
    loop = OpenLoop(schedule(serve(posts), topics=topics, rate=200, batch=10, size_bytes=200))
    figures = loop.run()
    lines = [json.loads(line) for body in posts.bodies for line in body.splitlines()]
    assert (figures["requests"], figures["events_accepted"]) == (4, 40)
    assert b"Content-Type: application/x-ndjson" in posts.heads[0]
    assert b"?" not in posts.heads[0].split(b"\r\n")[0]
    assert [line["topic"] for line in lines] == [*topics] * 20
    assert {line["data"]["due"] for line in lines[:10]} == {loop.due_at_us}
    assert {len(json.dumps(line["data"], separators=(",", ":"))) for line in lines} == {200}


def test_headers_and_a_path_of_ones_own_are_sent(serve: Serve) -> None:
    posts = Posts(OK)
    server = serve(posts)
    url = f"http://127.0.0.1:{server.port}/pub?id=x"
    OpenLoop(schedule(server, url=url, topics=(), rate=10, headers=(("X-A", "b"),))).run()
    assert posts.heads[0].startswith(b"POST /pub?id=x HTTP/1.1\r\n")
    assert b"\r\nX-A: b\r\n" in posts.heads[0]


def test_a_server_that_is_not_there_is_tried_again(serve: Serve) -> None:
    server = serve(lambda connection, head, number: None)
    server.close()
    figures = OpenLoop(schedule(server, rate=100, patience_s=0)).run()
    assert figures["connects"] == figures["connects_failed"] >= 2
    assert (figures["requests"], figures["unsent"]) == (0, 20)


def test_a_run_can_be_stopped(serve: Serve) -> None:
    posts = Posts(OK)
    loop = OpenLoop(schedule(serve(posts), rate=100, duration_s=3600))
    thread = threading.Thread(target=loop.run)
    thread.start()
    wait_for(lambda: loop.figures()["accepted"] > 3)
    loop.stop()
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"size_bytes": 10}, "--size"),
        ({"rate": -1}, "--rate"),
        ({"duration_s": 0}, "--duration"),
        ({"depth": 0}, "--depth"),
        ({"topics": (), "batch": 2}, "topic"),
        ({"headers": (("A", "b\n"),)}, "line break"),
        ({"url": "ftp://127.0.0.1"}, "http://"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(changes: dict[str, Any], says: str) -> None:
    values: dict[str, Any] = {"url": "http://127.0.0.1:9", "topics": ("t",), **changes}
    with pytest.raises(Refusal, match=says):
        OpenLoop(Schedule(**values))
