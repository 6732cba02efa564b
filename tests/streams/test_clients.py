"""The protocol's own clients read and append, also over a network that is cut again and again."""

import asyncio
import json
import shutil
from pathlib import Path

import durable_streams
import pytest

from fastsse.server import Server
from tests.libraries.node import MODULES, NODE
from tests.streams.cutting import cutting

HERE = Path(__file__).parent


@pytest.mark.timeout(180)
@pytest.mark.parametrize("live", ["sse", "long-poll"])
async def test_the_typescript_client_reads_the_same_text_when_the_network_is_cut(
    server: Server, tmp_path: Path, live: str
) -> None:
    if not (MODULES / "@durable-streams/client").is_dir():
        pytest.skip("the packages of tests/node are not installed; `make test-all` does it")
    shutil.copy(HERE / "clients.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(MODULES)
    port = int(server.addresses[0].rpartition(":")[2])
    path = "/streams/words"
    async with cutting(port, cuts_max=100) as (url, proxy):
        urls = f"{server.addresses[0]}{path}", f"{url}{path}"
        process = await asyncio.create_subprocess_exec(
            *(NODE, tmp_path / "clients.mjs", *urls, live, "1500"),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(150):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    found = json.loads(output)
    assert found["failures"] == []
    assert found["text"] == "".join(f"word-{n} " for n in range(1500))
    assert proxy.cuts >= 50


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
