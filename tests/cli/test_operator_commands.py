"""The operator's commands, against services of one and of several processes."""

import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.cli.commandline import command, environment
from tests.docs.servers import Served


def run(served: Served, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command against a server."""
    url = f"http://{served.address}"
    return subprocess.run(
        command(arguments), capture_output=True, text=True, timeout=60, check=False,
        env=environment(FASTSSE_URL=url, FASTSSE_TOKEN="sesame"),
    )  # fmt: skip


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
    assert (shown.returncode, shown.stderr) == (0, "")
    rows = json.loads(shown.stdout)["connections"]
    assert len({row["id"] for row in rows}) == 6
    table = run(served, "connections", "-n", "2")
    assert len(table.stdout.splitlines()) == 3
    assert "more than 2" in table.stderr
    topics = run(served, "topics", "list", "n*")
    assert topics.stdout.splitlines()[1].split("\t")[:2] == ["news", "6"]
    top = run(served, "top", "--json", "--count", "1")
    assert json.loads(top.stdout)["topics"][0]["subscribers"] == 6
    assert "6 streams" in run(served, "top", "--count", "1").stdout
    one = run(served, "kick", rows[0]["id"], "--retry", "1h")
    assert (one.returncode, one.stdout) == (0, "1 ended\n")
    assert run(served, "kick", rows[0]["id"]).returncode == 1
    rest = run(served, "kick", "--topic", "news", "--retry", "1h", "--json")
    assert json.loads(rest.stdout)["kicked"] == 5
    assert json.loads(run(served, "connections", "--json").stdout)["connections"] == []


def test_levels_and_sources_are_shown_and_faults_are_a_sentence(served: Served) -> None:
    assert "fastsse.http debug" in run(served, "log-level", "debug", "--part", "http").stdout
    assert run(served, "source", "list").stdout.startswith("name\tsystem")
    refused = run(served, "topics", "list", "--token", "wrong")
    assert refused.returncode == 1
    assert "401" in refused.stderr
    assert "Traceback" not in refused.stderr
    absent = run(served, "connections", "--url", "http://127.0.0.1:1")
    assert (absent.returncode, absent.stderr) == (3, "http://127.0.0.1:1: connection refused.\n")
    assert run(served, "kick").returncode == 2
    bad = run(served, "kick", "--subject", "x", "--bar", "soon")
    assert (bad.returncode, "bar" in bad.stderr) == (1, True)
