"""`fastsse publish --rate` keeps its schedule, and `fastsse swarm` says what of it arrived."""

import asyncio
import json
import signal
from itertools import pairwise
from pathlib import Path

import pytest

from fastsse import stamp
from fastsse.cli.openloop import pipelined
from fastsse.client import listen
from tests.streamserver import StreamServer, answering

BUSY = answering("503 Service Unavailable", b'{"detail":"Full."}', b"Retry-After: 0\r\n")


def paced(url: str, *more: str, rate: str = "200/s", duration: str = "200ms") -> tuple[str, ...]:
    return ("publish", "news", "--rate", rate, "--duration", duration, "--url", url, *more)


async def test_each_event_says_when_it_was_due(start, here) -> None:
    async with listen(here.url, "news", last_event_id="earliest") as stream:
        publish = await start(*paced(here.url, "--size", "100", "--event", "tick"))
        events = [await anext(stream) for _ in range(40)]
        done = await publish.ended()
    stamps = [stamp.decode(event.data.encode()) for event in events]
    assert {len(event.data) for event in events} == {100}
    assert {event.event for event in events} == {"tick"}
    assert [one and one.count for one in stamps] == list(range(1, 41))
    gaps = {b.due_us - a.due_us for a, b in pairwise(stamps) if a and b}
    assert gaps == {5000}
    assert (done.status, done.err) == (0, "")
    assert "due" in done.out
    assert "40 (200/s)" in done.out
    assert "due → answered" in done.out


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
async def test_the_swarm_counts_what_was_published_on_every_stream(
    start, here, tmp_path: Path, end: signal.Signals
) -> None:
    path = tmp_path / "out.json"
    swarm = await start(
        *("swarm", here.url, "--topic", "news", "-c", "30", "--processes", "2"),
        *("--duration", "0", "--json", str(path)),
    )
    await until(here.url, "fastsse_connections", 30)
    publish = await start(*paced(here.url, "--connections", "3"))
    assert (await publish.ended()).status == 0
    await until(here.url, "fastsse_deliveries_total", 40 * 30)
    swarm.signal(end)
    done = await swarm.ended()
    assert done.status == 0, done.err
    assert "latency (due → read)" in done.out
    found = json.loads(path.read_text())
    assert found["counters"]["events"] == found["counters"]["counted"] == 40 * 30
    assert set(found["faults"].values()) == {0}
    assert found["connections"] == {"stream": 30}


async def metrics(url: str) -> dict[str, float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    rows = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("fastsse_"))
    return {name: float(value) for name, value in rows}


async def until(url: str, metric: str, least: float) -> None:
    while (await metrics(url))[metric] < least:
        pass


async def test_refused_events_are_counted_and_end_in_status_1(start) -> None:
    async with StreamServer(BUSY) as server:
        done = await (await start(*paced(server.url, rate="50"))).ended()
    assert done.status == 1
    assert "10 (the last with status 503)" in done.out


async def test_interrupt_ends_the_run_with_its_table(start, here) -> None:
    async with listen(here.url, "news", last_event_id="earliest") as stream:
        publish = await start(*paced(here.url, duration="1h"))
        await anext(stream)
        publish.signal(signal.SIGINT)
        done = await publish.ended()
    assert done.status == 130
    assert "accepted" in done.out
    assert "Traceback" not in done.err


async def test_server_that_is_not_there_is_one_line_and_exit_3(start) -> None:
    async with StreamServer(BUSY) as server:
        pass
    done = await (await start(*paced(server.url, "--patience", "0s"))).ended()
    assert (done.status, done.out) == (3, "")
    assert done.err == f"{server.url}: connection refused.\n"


@pytest.mark.parametrize(
    ("rate", "connections", "most"),
    [(1, 1, 8), (8_000, 1, 8), (8_001, 1, 9), (100_000, 1, 64), (100_000, 8, 13), (1e9, 1, 64)],
)
def test_more_requests_are_under_way_at_a_higher_rate(
    rate: float, connections: int, most: int
) -> None:
    assert pipelined(rate, connections) == most


async def test_a_high_rate_does_not_wait_for_answers(start) -> None:
    """The server answers when twenty requests have come, and not before."""
    count = 20

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(count):
            await reader.readuntil(b"POST /")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}" * count)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        publish = await start(*paced(url, "--patience", "5s", rate="20000/s", duration="1ms"))
        done = await publish.ended()
    assert done.status == 0, done.out
    assert "20 (" in done.out


async def test_token_is_sent(start) -> None:
    async with StreamServer(answering("200 OK", b'{"id":"5-1"}')) as server:
        await (await start(*paced(server.url, "--token", "secret"))).ended()
        assert server.requests[0].headers[b"authorization"] == b"Bearer secret"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["news", "data", "--rate", "9"], "leave DATA out"),
        (["--rate", "9"], "TOPIC is missing"),
        (["--rate", "9", "--ndjson", "news"], "--ndjson can't be combined with --rate"),
        (["news", "--rate", "9", "--id", "x"], "--id is for one event"),
        (["news", "--rate", "9", "--uds", "/x"], "use --url in place of --uds"),
        (["news", "--rate", "fast"], "must be a rate such as 100/s"),
        (["news", "--rate", "0"], "must be above 0"),
        (["news", "--rate", "9", "--duration", "0"], "--duration must be above 0"),
        (["news", "--rate", "9", "--size", "12"], "--size must be 80 to"),
        (["news", "--rate", "9", "--size", "big"], "must be a size"),
        (["news", "--rate", "9", "--url", "https://127.0.0.1"], "is not an http:// URL"),
        (["news", "data", "--size", "128"], "--size needs --rate"),
        (["news", "data", "--duration", "1s"], "--duration needs --rate"),
        (["news", "data", "--connections", "2"], "--connections needs --rate"),
    ],
)
async def test_what_makes_no_sense_together_is_refused(start, arguments, says) -> None:
    done = await (await start("publish", *arguments)).ended()
    assert (done.status, done.out) == (2, "")
    assert says in " ".join(done.err.split())


async def test_swarm_refuses_in_one_line(start) -> None:
    done = await (await start("swarm", "http://192.0.2.1/", "-c", "5")).ended()
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert "--i-own-this-target" in done.err
