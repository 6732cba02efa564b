"""Fills a server that has 80 descriptors with streams and asks for its health."""

import asyncio
import json
import resource
import sys


async def served(port: int, path: bytes) -> tuple[asyncio.StreamWriter, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
    try:
        return writer, await asyncio.wait_for(reader.read(1000), 20)
    except (ConnectionError, TimeoutError) as error:
        return writer, type(error).__name__.encode()


async def clients(port: int, streams: int) -> None:
    held = [await served(port, b"/events?topic=a") for _ in range(streams)]
    _, answer = await served(port, b"/healthz")
    print("alive" if b" 200 " in answer else f"no answer next to {len(held)} streams")


async def main() -> None:
    program = [sys.executable, "-m", "fastsse", "serve", "--port", "0", "--log-format", "json"]
    server = await asyncio.create_subprocess_exec(
        *program,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80)),
    )
    assert server.stderr is not None
    while b'"addresses"' not in (line := await server.stderr.readline()):
        assert line, "the server did not start"
    start = json.loads(line)
    try:
        await clients(int(start["addresses"][0].rpartition(":")[2]), start["max_connections"])
    finally:
        server.terminate()
        await server.wait()


asyncio.run(main())
