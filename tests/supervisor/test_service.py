"""Several workers are one service: to publishers, subscribers, probes and newcomers."""

import asyncio
import os
import signal
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from fastsse.client import Publisher, listen
from fastsse.config import Config
from fastsse.supervisor.sockets import open_for_workers
from tests.http.raw import get, opened
from tests.sanitized import measures_memory
from tests.supervisor.service import gone


async def open_streams(stack: AsyncExitStack, url: str, count: int) -> list:
    """Streams of topic `t`, opened one after another."""
    streams = []
    for _ in range(count):
        raw = await stack.enter_async_context(opened(url))
        await raw.send(get("/events?topic=t"))
        streams.append(await raw.stream())
        await streams[-1].opening()
    return streams


async def test_subscribers_of_all_workers_see_the_same_sequence(serve) -> None:
    service = await serve("--workers", "3")
    async with AsyncExitStack() as stack:
        streams = await open_streams(stack, service.url, 24)
        stats = await service.stats()
        assert len(stats["processes"]) == 3
        assert sum(one["connections"] for one in stats["processes"]) == 24
        assert all(one["connections"] for one in stats["processes"])

        async def publish(name: str) -> None:
            async with Publisher(service.url) as publisher:
                for number in range(20):
                    await publisher.publish("t", f"{name}{number}")

        await asyncio.gather(*map(publish, "abc"))
        seen = [[(await stream.next()).last_event_id for _ in range(60)] for stream in streams]
        assert all(one == seen[0] for one in seen)
        assert len(set(seen[0])) == 60


async def test_probes_answer_for_the_whole_service_from_any_worker(serve) -> None:
    service = await serve("--workers", "2")
    async with AsyncExitStack() as stack, Publisher(service.url) as publisher:
        await open_streams(stack, service.url, 10)
        await publisher.publish("t", "x")
        await service.until(lambda stats: stats["totals"]["deliveries"] == 10)
        for _ in range(8):  # Each by a connection of its own, so by either worker.
            async with httpx.AsyncClient(trust_env=False) as client:
                assert (await client.get(f"{service.url}/healthz")).text == "alive\n"
                assert (await client.get(f"{service.url}/readyz")).text == "ready\n"
                metrics = (await client.get(f"{service.url}/metrics")).text
                assert "\nfastsse_connections 10.0\n" in metrics
                assert "\nfastsse_events_published_total 1.0\n" in metrics
                assert "\nfastsse_workers 2.0\n" in metrics


async def test_killed_worker_ends_its_own_streams_only_and_counts_go_on(serve) -> None:
    service = await serve("--workers", "2")
    async with AsyncExitStack() as stack:
        streams = await open_streams(stack, service.url, 16)
        before = await service.until(lambda stats: stats["connections"] == 16)
        victim = before["processes"][0]
        os.kill(victim["pid"], signal.SIGKILL)
        after = await service.until(
            lambda stats: (
                len(stats["processes"]) == 2
                and victim["pid"] not in [one["pid"] for one in stats["processes"]]
            )
        )
        assert after["connections"] == 16 - victim["connections"]
        assert after["totals"]["connections"] >= before["totals"]["connections"]
        async with Publisher(service.url) as publisher:
            receipt = await publisher.publish("t", "after")
        got = await asyncio.gather(*(stream.next() for stream in streams), return_exceptions=True)
        alive = [one for one in got if not isinstance(one, BaseException)]
        assert len(alive) == 16 - victim["connections"]
        assert {one.last_event_id for one in alive} == {receipt.id}
        async with listen(service.url, "t", last_event_id="earliest") as resumed:
            assert (await anext(resumed)).id == receipt.id


async def test_killed_hub_ends_no_stream_and_loses_nothing(serve) -> None:
    service = await serve("--workers", "2")
    async with AsyncExitStack() as stack:
        streams = await open_streams(stack, service.url, 8)
        async with Publisher(service.url) as publisher:
            ids = [(await publisher.publish("t", "before")).id]
            (hub,) = service.children()["hub"]
            os.kill(hub, signal.SIGKILL)
            ids += [(await publisher.publish("t", f"after {n}")).id for n in range(5)]
        for stream in streams:
            assert [(await stream.next()).last_event_id for _ in ids] == ids
        assert service.children()["hub"] != [hub]
        async with listen(service.url, "t", last_event_id="earliest") as resumed:
            assert [(await anext(resumed)).id for _ in ids] == ids


async def test_figures_of_a_hub_that_stands_still_are_a_503_that_says_so(serve) -> None:
    service = await serve("--workers", "2")
    (hub,) = service.children()["hub"]
    os.kill(hub, signal.SIGSTOP)
    try:
        async with httpx.AsyncClient(base_url=service.url, timeout=30) as client:
            paths = ("/stats", "/metrics", "/admin/history")
            answers = await asyncio.gather(*(client.get(path) for path in paths))
    finally:
        os.kill(hub, signal.SIGCONT)
    for answer in answers:
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "hub process" in answer.json()["detail"]


async def test_killed_supervisor_takes_all_with_it(serve) -> None:
    service = await serve("--workers", "2")
    children = service.children()
    async with AsyncExitStack() as stack:
        streams = await open_streams(stack, service.url, 4)
        service.signal(signal.SIGKILL)
        for stream in streams:
            await stream.to_end()
            assert stream.parsed.retry_ms is not None
    for pid in (*children["hub"], *children["worker"]):
        await gone(pid)


async def test_sigterm_drains_every_worker(serve) -> None:
    service = await serve("--workers", "2")
    async with AsyncExitStack() as stack:
        streams = await open_streams(stack, service.url, 8)
        service.signal(signal.SIGTERM)
        for stream in streams:
            await stream.to_end()
    assert await service.ended() == 0
    assert not [record for record in service.log if record.get("level") in ("warning", "error")]


# ── Newcomers of a full worker ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("is_shared", [False, True])
async def test_newcomers_of_a_full_worker_go_to_one_with_room(
    serve, tmp_path: Path, is_shared: bool
) -> None:
    where = ("--uds", str(tmp_path / "s")) if is_shared else ()
    service = await serve("--workers", "3", "--max-connections", "12", *where)
    url = service.url
    async with AsyncExitStack() as stack:
        # Were each newcomer the kernel's choice, some worker would be full before the others.
        streams = []
        for _ in range(12):
            raw = await stack.enter_async_context(opened(url))
            await raw.send(get("/events?topic=t"))
            streams.append(await raw.stream())
            await streams[-1].opening()
            assert b"id:" in streams[-1].body, "refused"
        raw = await stack.enter_async_context(opened(url))
        await raw.send(get("/events?topic=t"))
        answer = await raw.rest()
        assert b"retry: " in answer
        assert b"id:" not in answer


# ── Sockets ───────────────────────────────────────────────────────────────────────────────────


async def test_unix_socket_is_served_by_all_and_removed_at_the_end(serve, tmp_path: Path) -> None:
    path = tmp_path / "s"
    service = await serve("--workers", "2", "--uds", str(path))
    async with opened(f"unix:{path}") as raw:
        await raw.send(get("/healthz"))
        assert (await raw.answer()).status == 200
    service.signal(signal.SIGTERM)
    assert await service.ended() == 0
    assert not path.exists()


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_sockets_of_the_service_manager_are_served(serve, workers: str) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as main,
        socket.create_server(("127.0.0.1", 0)) as admin,
    ):
        service = await serve("--workers", workers, activated=(main.fileno(), admin.fileno()))
        ports = [sock.getsockname()[1] for sock in (main, admin)]
    assert service.url == f"http://127.0.0.1:{ports[0]}"
    async with opened(f"http://127.0.0.1:{ports[1]}") as raw:
        await raw.send(get("/healthz"))
        assert (await raw.answer()).status == 200
    async with opened(service.url) as raw:
        await raw.send(get("/healthz"))
        assert (await raw.answer()).status == 404


async def test_port_in_use_is_refused_in_one_line(serve) -> None:
    service = await serve("--workers", "2")
    port = service.url.rpartition(":")[2]
    other = await serve("--workers", "2", "--port", port, wait=False)
    assert await other.ended() == 1
    assert other.log == [{"text": f"Port {port} is in use. Choose another with --port.\n"}]


async def test_what_a_worker_can_not_start_with_is_one_line_with_its_origin(serve) -> None:
    service = await serve("--workers", "2", "--max-connections", "10000000", wait=False)
    assert await service.ended() == 2
    texts = [record["text"] for record in service.log if "text" in record]
    assert len(texts) == 1
    assert texts[0].startswith("max_connections = ")
    assert "(from --max-connections) must be at most" in texts[0]


# ── Memory ────────────────────────────────────────────────────────────────────────────────────


async def test_idle_worker_has_little_memory_of_its_own(serve) -> None:
    service = await serve("--workers", "3")
    await service.until(lambda stats: len(stats["processes"]) == 3)
    for pid in service.children()["worker"]:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()  # noqa: ASYNC240
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
        own_bytes = 1024 * (sizes["Private_Clean"] + sizes["Private_Dirty"])
        assert own_bytes <= 17 * 1024 * 1024


@measures_memory
@pytest.mark.parametrize(
    ("flag", "most_bytes"), [("--no-connection-details", 128), ("--connection-details", 192)]
)
async def test_streams_of_clients_that_connect_before_they_ask_cost_few_bytes(
    serve, flag: str, most_bytes: int
) -> None:
    count, burst = 6_000, 1_000
    service = await serve(flag)
    pid, port = service.process.pid, int(service.url.rpartition(":")[2])
    clients: list[socket.socket] = []
    try:
        # What a burst needs while it is read is kept for the next one. The first one is larger,
        # because on a busy machine more or less of a burst waits at the same time.
        await _subscribe(clients, port, 2 * burst)
        before = _anonymous_bytes(pid)
        for _ in range(count // burst):
            await _subscribe(clients, port, burst)
        grown_bytes = _anonymous_bytes(pid) - before
    finally:
        for client in clients:
            client.close()
    assert grown_bytes <= most_bytes * count


def test_every_worker_accepts_a_connection_only_when_its_request_is_there() -> None:
    workers = open_for_workers(Config(port=0), 3)
    try:
        sockets = {sock for worker in workers for sock in worker.main}
        assert len(sockets) == 3
        options = [sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) for sock in sockets]
        assert all(options)
    finally:
        for worker in workers:
            worker.close()


def _anonymous_bytes(pid: int) -> int:
    """A process's share of memory that no file backs, as the kernel counts it."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:"))


async def _subscribe(clients: list[socket.socket], port: int, count: int) -> None:
    """Opens streams of one topic, connecting all before the first of them sends its request."""
    loop = asyncio.get_running_loop()
    begun = len(clients)
    for _ in range(count):
        clients.append(socket.socket())
        clients[-1].setblocking(False)
        await loop.sock_connect(clients[-1], ("127.0.0.1", port))
    for client in clients[begun:]:
        await loop.sock_sendall(client, get("/events?topic=t"))
    for client in clients[begun:]:
        received = b""
        while b"\n\n" not in received:
            received += await loop.sock_recv(client, 4096)
