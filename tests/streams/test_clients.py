"""The protocol's own clients read and append, also over a network that is cut again and again."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import durable_streams
import pytest

from fastsse.server import Server
from tests.libraries.node import MODULES, NODE
from tests.streams.cutting import cutting

HERE = Path(__file__).parent


@pytest.mark.timeout(240)
@pytest.mark.parametrize("live", ["sse", "long-poll"])
async def test_the_typescript_client_reads_the_same_text_when_the_network_is_cut(
    server: Server, tmp_path: Path, live: str
) -> None:
    if not (MODULES / "@durable-streams/client").is_dir():
        pytest.skip("the packages of tests/node are not installed; `make test-all` does it")
    shutil.copy(HERE / "clients.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(MODULES)
    port = int(server.addresses[0].rpartition(":")[2])
    async with cutting(port, cuts_max=100) as (url, proxy), asyncio.timeout(200):
        runs = 0
        while proxy.cuts < 50:  # A busy machine has fewer connections in one run.
            runs += 1
            path = f"/streams/words-{runs}"
            words = (f"{server.addresses[0]}{path}", f"{url}{path}", live, "1500")
            found = await printed(tmp_path / "clients.mjs", *words)
            assert found["failures"] == []
            assert found["text"] == "".join(f"word-{n} " for n in range(1500))


async def printed(program: Path, *words: str) -> dict[str, Any]:
    """What a program of Node prints as JSON."""
    process = await asyncio.create_subprocess_exec(
        NODE, program, *words, stdout=asyncio.subprocess.PIPE
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return json.loads(output)


@pytest.mark.parametrize("live", [False, "long-poll", "sse"])
async def test_the_python_client_reads_what_it_appended(server: Server, live: str | bool) -> None:
    url = f"{server.addresses[0]}/streams/python"

    def use() -> list[object]:
        handle = durable_streams.DurableStream.create(url, content_type="application/json")
        handle.append({"n": 1})
        handle.append({"n": 2})
        handle.append([3])
        seen: list[object] = []
        with durable_streams.stream(url, offset="-1", live=live) as response:
            for item in response.iter_json():
                seen.append(item)
                if len(seen) == 3:
                    break
        handle.delete()
        return seen

    assert await asyncio.to_thread(use) == [{"n": 1}, {"n": 2}, [3]]
