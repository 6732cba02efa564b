"""The operator's commands, against services of one and of several processes."""

import contextlib
import json
import socket
from collections.abc import Iterator

import pytest

from tests.cli.commandline import Ended, called
from tests.docs.servers import Served


def run(served: Served, *arguments: str) -> Ended:
    """A command against a server."""
    return called(*arguments, FASTSSE_URL=f"http://{served.address}", FASTSSE_TOKEN="sesame")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A node with two workers."""
    one = Served("--workers 2 --console-password sesame", tmp_path_factory.mktemp("two"), {})
    yield one
    one.stop()


@pytest.fixture
def listeners(served: Served) -> Iterator[None]:
    """Six streams, which the kernel spreads over the workers."""
    host, _, port = served.address.partition(":")
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            sock = stack.enter_context(socket.create_connection((host, int(port)), timeout=60))
            sock.sendall(b"GET /events?topic=news HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert sock.recv(4096).startswith(b"HTTP/1.1 200 OK")
        yield


def test_lists_and_kicks_reach_every_worker(served: Served, listeners: None) -> None:
    shown = run(served, "connections", "--topic", "news", "--json")
    assert (shown.status, shown.err) == (0, "")
    rows = json.loads(shown.out)["connections"]
    assert len({row["id"] for row in rows}) == 6
    table = run(served, "connections", "-n", "2")
    assert len(table.out.splitlines()) == 3
    assert "more than 2" in table.err
    topics = run(served, "topics", "list", "n*")
    assert topics.out.splitlines()[1].split("\t")[:2] == ["news", "6"]
    top = run(served, "top", "--json", "--count", "1")
    assert json.loads(top.out)["topics"][0]["subscribers"] == 6
    assert "6 streams" in run(served, "top", "--count", "1").out
    one = run(served, "kick", rows[0]["id"], "--retry", "1h")
    assert (one.status, one.out) == (0, "1 ended\n")
    assert run(served, "kick", rows[0]["id"]).status == 1
    rest = run(served, "kick", "--topic", "news", "--retry", "1h", "--json")
    assert json.loads(rest.out)["kicked"] == 5
    assert json.loads(run(served, "connections", "--json").out)["connections"] == []


def test_levels_and_sources_are_shown_and_faults_are_a_sentence(served: Served) -> None:
    assert "fastsse.http debug" in run(served, "log-level", "debug", "--part", "http").out
    assert run(served, "source", "list").out.startswith("name\tsystem")
    refused = run(served, "topics", "list", "--token", "wrong")
    assert refused.status == 1
    assert "401" in refused.err
    assert "Traceback" not in refused.err
    absent = run(served, "connections", "--url", "http://127.0.0.1:1")
    assert (absent.status, absent.err) == (3, "http://127.0.0.1:1: connection refused.\n")
    assert run(served, "kick").status == 2
    bad = run(served, "kick", "--subject", "x", "--bar", "soon")
    assert (bad.status, "bar" in bad.err) == (1, True)
