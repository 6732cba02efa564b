"""The protocol's own clients read and append, also over a network that is cut again and again, and
through a proxy that keeps no event stream open."""

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import durable_streams
import pytest

from fastsse.server import Server
from tests.browser.chromium import PROGRAM, chromium
from tests.clients.javascript import bundled
from tests.libraries.node import MODULES, NODE
from tests.streams.cutting import cutting

HERE = Path(__file__).parent
# How long the proxy leaves an event stream open: the client takes less than a second for a fault.
OPEN_S = 0.05
PAGE = """
import { DurableStream, IdempotentProducer, stream } from "@durable-streams/client";
window.readBack = async (url, live, whole) => {
  const handle = await DurableStream.create({ url, contentType: "text/plain" });
  const producer = new IdempotentProducer(handle, "page", { maxBatchBytes: 64, lingerMs: 1 });
  const response = await stream({ url, live, offset: "-1" });
  const reading = new Promise((resolve) => {
    let text = "";
    response.subscribeText((chunk) => {
      text += chunk.text;
      if (text.length >= whole.length) resolve(text);
    });
  });
  for (const word of whole.match(/[^ ]+ /g)) producer.append(word);
  await producer.flush();
  const text = await reading;
  response.cancel();
  return text;
};
"""


@contextlib.asynccontextmanager
async def short_event_streams(port: int) -> AsyncIterator[str]:
    """A proxy in front of a port that ends each event stream in order, after a moment."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(OSError, EOFError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                back.write(head)
                if b"live=sse" in head.split(b"\r\n", 1)[0]:
                    await _copy_for_a_moment(there, writer)
                    break
                await _copy_body(head, reader, back)
                answer = await there.readuntil(b"\r\n\r\n")
                writer.write(answer)
                await _copy_body(answer, there, writer)
        writer.close()
        back.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def _copy_for_a_moment(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    data = await reader.readuntil(b"\r\n\r\n")
    is_chunked = b"transfer-encoding: chunked" in data.lower()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(OPEN_S):
            while more := await reader.read(1 << 16):
                data += more
    writer.write(data + (b"0\r\n\r\n" if is_chunked else b""))


async def _copy_body(
    head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n") if b": " in line)
    if size := int(fields.get(b"content-length", b"0")):
        writer.write(await reader.readexactly(size))


@pytest.mark.timeout(120)
async def test_the_typescript_client_falls_back_to_polls_where_event_streams_end_at_once(
    server: Server, tmp_path: Path
) -> None:
    if not (MODULES / "@durable-streams/client").is_dir():
        pytest.skip("the packages of tests/node are not installed; `make test-all` does it")
    shutil.copy(HERE / "clients.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(MODULES)
    port = int(server.addresses[0].rpartition(":")[2])
    async with short_event_streams(port) as url, asyncio.timeout(90):
        path = "/streams/words"
        words = (f"{server.addresses[0]}{path}", f"{url}{path}", "sse", "500")
        found = await printed(tmp_path / "clients.mjs", *words)
    assert found["text"] == "".join(f"word-{n} " for n in range(500))
    assert [text for text in found["warnings"] if "Falling back to long polling" in text]


@pytest.mark.timeout(120)
@pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")
@pytest.mark.parametrize("live", ["sse", "long-poll"])
async def test_the_typescript_client_reads_in_a_browser_what_its_producer_appended(
    server: Server, tmp_path: Path, live: str
) -> None:
    if not (MODULES / "@durable-streams/client").is_dir():
        pytest.skip("the packages of tests/node are not installed; `make test-all` does it")
    whole = "".join(f"word-{n} " for n in range(300))
    url = f"{server.addresses[0]}/streams/page"
    async with chromium(tmp_path / "profile") as browser:
        page = await browser.open(f"{server.addresses[0]}/healthz")
        await page.run(bundled(PAGE, tmp_path))
        words = ", ".join(json.dumps(one) for one in (url, live, whole))
        assert await page.run(f"readBack({words})") == whole


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
