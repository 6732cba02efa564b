"""curl and Node read streams whose records the server seals, event by event up to a clean end."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from fastsse import _door
from fastsse.config import Config
from fastsse.server import Server
from tests.certificates import issue
from tests.libraries.node import NODE

try:
    _door.library_version()
except _door.TlsError:
    pytest.skip("OpenSSL 3 is not installed", allow_module_level=True)

TIMEOUT_S: Final = 60
EVENTS: Final = 5
_CURL: Final = ("curl", "-sSN", "--noproxy", "*", "--http1.1", "--cacert")
_NODE: Final = """
const [ca, url, ciphers] = process.argv.slice(1);
const options = {ca: require("fs").readFileSync(ca), ciphers: ciphers || undefined};
require("https").get(url, options, (answer) => {
  answer.on("data", (data) => process.stdout.write(data));
  answer.on("end", () => process.exit(answer.complete ? 0 : 2));
}).on("error", (error) => { console.error(error); process.exit(3); });
"""


@asynccontextmanager
async def running(command: Sequence[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def read_until(process: asyncio.subprocess.Process, ending: bytes) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(TIMEOUT_S):
        await process.stdout.readuntil(ending)


@pytest.mark.parametrize(
    "client",
    [
        ("curl",),
        ("curl", "--tls13-ciphers", "TLS_AES_128_GCM_SHA256"),
        ("node", ""),
        ("node", "TLS_AES_128_GCM_SHA256"),
    ],
    ids=" ".join,
)
async def test_each_event_arrives_at_once_and_the_end_is_clean(
    tmp_path: Path, client: tuple[str, ...]
) -> None:
    if client[0] == "curl" and shutil.which("curl") is None:
        pytest.skip("no curl here")
    certificate, key = issue(tmp_path, "localhost")
    options = Config(
        port=0,
        access_lines=0,
        tls_cert=certificate,
        tls_key=key,
        tls_records="native",
        clean_end="always",
    )
    async with Server(options) as server:
        url = f"https://localhost:{server.port}/events?topic=t"
        command = (
            [*_CURL, certificate, *client[1:], url]
            if client[0] == "curl"
            else [str(NODE), "-e", _NODE, certificate, url, *client[1:]]
        )
        async with running(command) as process:
            await read_until(process, b"\n\n")  # the opening
            for number in range(EVENTS):
                server.publish("t", f"event {number}")
                await read_until(process, b"event %d\n\n" % number)
            counters = server._worker.frontend.counters()
            assert counters["tls_records_released"] == 1
            await server.drain(0.05)
            assert await asyncio.wait_for(process.wait(), TIMEOUT_S) == 0
