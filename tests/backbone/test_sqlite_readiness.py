"""What `/readyz` says while a file is checked, and when there was no time for it."""

import sqlite3
import threading
from pathlib import Path

import httpx
import pytest

from fastsse import Config, Server
from fastsse.backbone.sqlite import verifying
from tests.backbone.test_sqlite_verified import filled


async def readiness(server: Server) -> tuple[int, str]:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        answer = await client.get(f"{server.addresses[0]}/readyz")
    return answer.status_code, answer.text.strip()


async def until_ready(server: Server) -> str:
    while (found := await readiness(server))[0] != 200:
        assert found == (503, "checking history")
    return found[1]


def config(path: Path) -> Config:
    return Config(port=0, store=f"sqlite:{path}", drain="0s")


async def test_a_server_is_not_ready_while_its_history_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "history.db"
    await filled(path)
    may_end = threading.Event()
    check = verifying._problem

    def waits(connection: sqlite3.Connection, name: str) -> str | None:
        assert may_end.wait(60)
        return check(connection, name)

    monkeypatch.setattr(verifying, "WAIT_S", 0.0)
    monkeypatch.setattr(verifying, "_problem", waits)
    try:
        async with Server(config(path)) as server:
            assert await readiness(server) == (503, "checking history")
            may_end.set()
            assert await until_ready(server) == "ready"
    finally:
        may_end.set()


async def test_a_history_that_could_not_be_checked_in_time_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "history.db"
    await filled(path)
    monkeypatch.setattr(verifying, "GIVE_UP_S", -1.0)
    monkeypatch.setattr(verifying, "STEPS", 1)
    async with Server(config(path)) as server:
        assert await until_ready(server) == "ready; 8 checks of history were not made in time"
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            metrics = await client.get(f"{server.addresses[0]}/metrics")
        assert "\nfastsse_store_unchecked 8.0\n" in metrics.text
    (line,) = [vars(one) for one in caplog.records if "unchecked" in one.getMessage()]
    assert line["unchecked"] == verifying.CHECKS
    assert len(verifying.CHECKS) == 8
