"""A reload replaces what serves, and clients notice only the new configuration."""

import asyncio
import json
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from tests.http.raw import get, opened
from tests.supervisor import keptload
from tests.supervisor.service import reload
from tests.supervisor.test_service import open_streams


class Load:
    """Publishers and connects that go on until the test ends them, and what went wrong."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.published = self.connects = 0
        self.faults: list[str] = []
        self.is_over = False

    async def publish(self) -> None:
        """One publisher over one keep-alive connection, as long as the server keeps it."""
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            while not self.is_over:
                try:
                    answer = await client.post(f"{self.url}/events?topic=t", content=b"x")
                    if answer.status_code != 200:
                        self.faults.append(f"publish: {answer.status_code} {answer.text}")
                except httpx.HTTPError as error:
                    self.faults.append(f"publish: {error!r}")
                self.published += 1

    async def connect(self) -> None:
        """Newcomers, one after another: each gets a stream."""
        while not self.is_over:
            try:
                async with opened(self.url) as raw:
                    await raw.send(get("/events?topic=other"))
                    stream = await raw.stream()
                    if b"id:" not in await stream.opening():
                        self.faults.append(f"connect: {stream.body!r}")
            except (OSError, asyncio.IncompleteReadError) as error:
                self.faults.append(f"connect: {error!r}")
            self.connects += 1


async def test_reload_under_load_refuses_no_connect_and_fails_no_publish(
    serve, tmp_path: Path
) -> None:
    file, pidfile = tmp_path / "f.toml", str(tmp_path / "pid")
    file.write_text('retry = "10ms"\n')
    service = await serve("--workers", "2", "--config", str(file), "--pidfile", pidfile)
    before = service.children()
    async with AsyncExitStack() as stack:
        streams = await open_streams(stack, service.url, 16)
        load = Load(service.url)
        tasks = [asyncio.create_task(load.publish()) for _ in range(3)]
        tasks += [asyncio.create_task(load.connect()) for _ in range(3)]
        file.write_text('heartbeat = "7s"\nhistory_events = 5\nretry = "10ms"\n')
        status, said = await reload("--pidfile", pidfile)
        assert (status, said) == (
            0, "Reloaded: 2 workers replaced. Only a restart changes history_events.\n",
        )  # fmt: skip
        # The old workers' streams end, spread over the drain, each with a time to come back.
        for stream in streams:
            await stream.to_end()
            assert stream.parsed.retry_ms is not None
        after = await service.replaced(before)
        assert after["hub"] == before["hub"]
        assert len(after["worker"]) == 2
        load.is_over = True
        await asyncio.gather(*tasks)
    assert load.faults == []
    assert load.published > 10
    assert load.connects > 10
    stats = await service.until(lambda stats: len(stats["processes"]) == 2)
    assert stats["totals"]["events_published"] == load.published


async def test_bad_configuration_is_refused_and_the_old_stays(serve, tmp_path: Path) -> None:
    file, pidfile = tmp_path / "f.toml", str(tmp_path / "pid")
    file.write_text("")
    service = await serve("--workers", "2", "--config", str(file), "--pidfile", pidfile)
    before = service.children()
    file.write_text("heartbeat = -1\n")
    status, said = await reload("--pidfile", pidfile)
    assert status == 1
    assert "heartbeat = " in said
    assert said.count("\n") == 1
    assert service.children() == before
    refused = await service.logged("Reload refused; all is as it was.")
    assert "heartbeat" in refused["reason"]
    # What only a worker finds out is refused too.
    file.write_text("max_connections = 10000000\n")
    status, said = await reload("--config", str(file), "--pidfile", pidfile)
    assert status == 1
    assert "max_connections" in said
    assert service.children() == before


async def test_one_process_applies_what_it_can_and_names_the_rest(serve, tmp_path: Path) -> None:
    file, pidfile = tmp_path / "f.toml", str(tmp_path / "pid")
    file.write_text(f'pidfile = "{pidfile}"\n')
    service = await serve("--config", str(file))
    file.write_text(
        f'pidfile = "{pidfile}"\nlog_level = "warning"\nmax_body = "1KiB"\nheartbeat = "5s"\n'
    )
    status, said = await reload("--config", str(file))
    assert (status, said) == (0, "Reloaded. Only a restart changes heartbeat.\n")
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"{service.url}/events?topic=t", content=b"x" * 2000)
        assert answer.status_code == 413
    async with AsyncExitStack() as stack:
        await open_streams(stack, service.url, 1)
    service.signal(signal.SIGTERM)
    assert await service.ended() == 0
    texts = [record["event"] for record in service.log]
    assert "Stream opened." not in texts
    assert "Some options change only with a restart." in texts


async def test_reload_without_a_server_is_answered_in_one_line(tmp_path: Path) -> None:
    status, said = await reload("--pidfile", str(tmp_path / "none"))
    assert status == 1
    assert said.startswith("No server answers for the pid file ")
    status, said = await reload()
    assert status == 2
    assert "--pidfile" in said


# ── The pid file ──────────────────────────────────────────────────────────────────────────────


async def test_pid_file_names_the_process_and_goes_with_it(serve, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    service = await serve("--workers", "2", "--pidfile", str(path))
    assert int(path.read_text()) == service.process.pid
    assert (os.stat(f"{path}.sock").st_mode & 0o777) == 0o600
    second = await serve("--pidfile", str(path), wait=False)
    assert await second.ended() == 1
    assert "belongs to a server that runs" in json.dumps(second.log)
    service.signal(signal.SIGTERM)
    assert await service.ended() == 0
    assert os.listdir(tmp_path) == []


async def test_pid_file_of_a_killed_server_is_taken_over(serve, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    first = await serve("--pidfile", str(path))
    first.signal(signal.SIGKILL)
    await first.ended()
    second = await serve("--pidfile", str(path))
    assert int(path.read_text()) == second.process.pid
    status, _ = await reload("--pidfile", str(path))
    assert status == 0


async def test_what_is_no_socket_is_not_removed_for_one(serve, tmp_path: Path) -> None:
    (tmp_path / "pid.sock").write_text("mine")
    service = await serve("--pidfile", str(tmp_path / "pid"), wait=False)
    assert await service.ended() == 1
    assert "Choose another --pidfile" in json.dumps(service.log)
    assert (tmp_path / "pid.sock").read_text() == "mine"


@pytest.mark.parametrize("where", ["missing/pid", "folder", "x" * 300, "link"])
async def test_unusable_pid_file_is_one_line(serve, tmp_path: Path, where: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "target").touch()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for workers in ("1", "2"):
        service = await serve(
            "--workers", workers, "--pidfile", str(tmp_path / where), wait=False
        )  # fmt: skip
        assert await service.ended() in (1, 2)
        assert len(service.log) == 1
        assert "pidfile" in service.log[0]["text"]
    assert (tmp_path / "target").read_text() == ""


async def test_kept_connections_are_answered_over_reloads_without_a_reset(
    serve, tmp_path: Path
) -> None:
    pidfile = str(tmp_path / "pid")
    service = await serve("--workers", "2", "--pidfile", pidfile, "--access-lines", "0")
    done = await keptload.load(service, pidfile, reloads=2, publishes=2_000)
    assert not done.faults
    assert done.answered >= 2_000
    assert done.announced >= 2 * 8
