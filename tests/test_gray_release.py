"""The interceptor of the guide releases to a share of users: a service of two workers, a plug-in
that is installed, a stream with a token for each user."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastsse.client import Publisher, listen
from fastsse.interceptors import in_share
from tests.auth.minting import SECRET, grants, mint
from tests.cli.conftest import Start, start

__all__ = ["start"]  # The fixture, used by name.

GUIDE = Path(__file__).parents[1] / "docs" / "guides" / "publish-rules.md"
USERS = [f"user/{n}" for n in range(40)]


def installed(folder: Path, share: float) -> None:
    """The plug-in of the guide, as pip would install it."""
    code = re.search(r"```python\n(# gray\.py\n.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    assert code is not None
    text, count = re.subn("SHARE = .*", f"SHARE = {share}", code[1])
    assert count == 1
    folder.mkdir()
    (folder / "gray.py").write_text(text)
    info = folder / "gray-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gray\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[fastsse.interceptors]\ngray = gray:release\n")


@asynccontextmanager
async def streams(url: str) -> AsyncIterator[dict[str, "asyncio.Task[list[str]]"]]:
    """A stream of each user, read to its event `end`."""

    async def read(user: str) -> list[str]:
        token = mint(grants(subscribe=[user])).decode()
        seen = []
        async with listen(url, USERS, token=token) as stream:
            opened.release()
            async for event in stream:
                if event.event == "end":
                    break
                seen.append(event.data)
        return seen

    opened = asyncio.Semaphore(0)
    tasks = {user: asyncio.create_task(read(user)) for user in USERS}
    try:
        for _ in tasks:
            await opened.acquire()
        yield tasks
    finally:
        for task in tasks.values():
            task.cancel()


async def released(start: Start, folder: Path, share: float) -> set[str]:
    """Which users get the banner."""
    installed(folder, share)
    options = ["--port", "0", "--drain", "0s", "--interceptors", "gray", "--workers", "2"]
    running = await start("serve", *options, PYTHONPATH=str(folder), FASTSSE_JWT_KEY=SECRET)
    line = await running.error_line()
    while "addresses" not in line:
        line = await running.error_line()
    url = json.loads(line)["addresses"][0]
    token = mint(grants(publish=["*"])).decode()
    async with streams(url) as tasks, Publisher(url, token=token) as publisher:
        await publisher.publish(USERS, "new", event="banner", private=True)
        await publisher.publish(USERS, "for all", private=True)
        await publisher.publish(USERS, "", event="end", private=True)
        async with asyncio.timeout(60):
            seen = {user: await task for user, task in tasks.items()}
    assert all(data in (["for all"], ["new", "for all"]) for data in seen.values())
    return {user for user, data in seen.items() if len(data) == 2}


async def test_the_share_of_the_guide_gets_the_event_and_keeps_it(
    start: Start, tmp_path: Path
) -> None:
    quarter = await released(start, tmp_path / "quarter", 0.25)
    half = await released(start, tmp_path / "half", 0.5)
    assert quarter == {user for user in USERS if in_share(user, 0.25, salt="banner")}
    assert 0 < len(quarter) < len(half) < len(USERS)
    assert quarter < half, "who had it keeps it"
