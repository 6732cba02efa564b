"""After a loss of power all that is left of durable streams is readable, and what was lost is
reported to readers that had it."""

import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.supervisor.service import Service

HEADERS = {"Content-Type": "text/plain"}


def without_power(path: Path, image: Path) -> None:
    """Puts back what the disk had when `image` was copied, on a machine that was started again."""
    for ending in ("", "-wal", "-commits", "-shm"):
        file = path.with_name(path.name + ending)
        file.unlink(missing_ok=True)
        copy = image / file.name
        if copy.exists():
            shutil.copy(copy, file)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE state SET boot = 'before'")
        # The last connection would move the log into the file.
        last = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        last.execute("SELECT 1 FROM state").fetchone()
    last.close()


@pytest.mark.parametrize("workers", [1, 2])
async def test_streams_are_read_after_a_loss_of_power_and_lost_offsets_are_410(
    serve: Callable[..., Awaitable[Service]], tmp_path: Path, workers: int
) -> None:
    path = tmp_path / "h.db"
    options = ("--store", f"sqlite:{path}", "--workers", str(workers), "--streams-poll", "1s")
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        service = await serve(*options)
        for name in ("log", "gone", "quiet"):
            stream = f"{service.url}/streams/{name}"
            assert (await client.put(stream, headers=HEADERS, content="kept ")).status_code == 201
        image = tmp_path / "image"
        image.mkdir()
        for ending in ("", "-wal", "-commits"):
            shutil.copy(path.with_name(path.name + ending), image)
        url = f"{service.url}/streams/log"
        kept = (await client.head(url)).headers["stream-next-offset"]
        lost = (await client.post(url, headers=HEADERS, content="lost")).headers
        assert (await client.delete(f"{service.url}/streams/gone")).status_code == 204
        await service.stop()
        without_power(path, image)
        service = await serve(*options)
        url = f"{service.url}/streams/log"

        async def read(offset: str, live: str = "") -> tuple[int, str]:
            answer = await client.get(f"{url}?offset={offset}{live}")
            return answer.status_code, answer.text

        assert await read("-1") == (200, "kept ")
        assert await read(kept) == (200, "")
        for live in ("", "&live=long-poll", "&live=sse"):
            assert (await read(lost["stream-next-offset"], live))[0] == 410
        assert (await client.post(url, headers=HEADERS, content="new")).status_code == 204
        assert await read("-1") == (200, "kept new")
        assert await read(kept) == (200, "new")
        for live in ("", "&live=long-poll", "&live=sse"):
            assert (await read(lost["stream-next-offset"], live))[0] == 410
        # Of the other streams nothing was lost but the deletion.
        for name in ("gone", "quiet"):
            assert (await client.get(f"{service.url}/streams/{name}")).text == "kept "
        await service.stop()
