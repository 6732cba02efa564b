"""ASGI servers as processes, on a free port, and raw readers of their streams."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import httpx

from fastsse.eventstream import EventStreamParser
from tests import endings
from tests.loopback import held_port

ROOT = Path(__file__).parents[2]
SERVERS: dict[str, tuple[str, ...]] = {
    "uvicorn": ("uvicorn", "--port", "{port}", "{app}"),
    "uvicorn-asyncio": ("uvicorn", "--loop", "asyncio", "--port", "{port}", "{app}"),
    "uvicorn-h11": ("uvicorn", "--http", "h11", "--port", "{port}", "{app}"),
    "uvicorn-asyncio-h11": (
        *("uvicorn", "--loop", "asyncio", "--http", "h11", "--port", "{port}", "{app}"),
    ),
    "hypercorn": ("hypercorn", "-b", "127.0.0.1:{port}", "{app}"),
    "daphne": ("daphne", "-b", "127.0.0.1", "-p", "{port}", "{app}"),
    "granian": (
        *("granian", "--interface", "asgi", "--workers-kill-timeout", "1", "--no-ws"),
        *("--port", "{port}", "{app}"),
    ),
}


class Running:
    """A server process and how to ask its program."""

    def __init__(self, port: int, process: asyncio.subprocess.Process, scheme: str) -> None:
        self.port = port
        self.process = process
        self.url = f"{scheme}://127.0.0.1:{port}"
        # uvicorn closes what is idle for 5 s.
        self.client = httpx.AsyncClient(
            base_url=self.url,
            verify=False,
            timeout=20,
            limits=httpx.Limits(keepalive_expiry=2),
        )
        self.errors: bytes = b""

    async def publish(self, topic: str, data: Any, **fields: Any) -> str:
        answer = await self.client.post("/publish", json={"topic": topic, "data": data, **fields})
        answer.raise_for_status()
        id: str = answer.json()["id"]
        return id

    async def counts(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.client.get("/counts")).raise_for_status().json()
        return found

    async def has_streams(self, count: int) -> None:
        """Waits until as many streams are open."""
        async with asyncio.timeout(30):
            while (await self.counts())["streams"] != count:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return await self.process.wait()


@asynccontextmanager
async def running(
    server: str,
    program: str,
    tmp_path: Path,
    *more: str,
    environment: dict[str, str] | None = None,
    python: str = sys.executable,
    scheme: str = "http",
) -> AsyncIterator[Running]:
    """A server with a program of `programs`; at the end it is killed if it still runs. Its output
    is in `output` of the folder."""
    with held_port() as held:
        port: int = held.getsockname()[1]
        app = f"tests.asgi.programs.{program}:app"
        words = [word.format(port=port, app=app) for word in SERVERS[server]]
        with (tmp_path / "output").open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(python, "-m", words[0], *more, *words[1:]),
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        one = Running(port, process, scheme)
        endings.watch(process.pid)
        try:
            await _answering(one)
            yield one
        finally:
            await one.client.aclose()
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
            endings.forget(process.pid)


async def _answering(one: Running) -> None:
    async with asyncio.timeout(60):
        while one.process.returncode is None:
            try:
                await one.counts()
            except httpx.TransportError:
                await asyncio.sleep(0.1)
            else:
                return
    raise AssertionError("the server ended")


class Reader:
    """A subscriber on a socket of its own."""

    def __init__(self, port: int, target: str, headers: Sequence[str] = ()) -> None:
        self._port = port
        self._head = "\r\n".join((f"GET {target} HTTP/1.1", "Host: x", *headers, "", "")).encode()
        self.received = b""

    async def __aenter__(self) -> Self:
        self._reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        self.writer.write(self._head)
        await self.until(b": fastsse")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def until(self, text: bytes) -> bytes:
        """Reads until the text has come; returns all."""
        async with asyncio.timeout(30):
            while text not in self.received:
                piece = await self._reader.read(65536)
                assert piece, f"the stream ended before {text!r}: {self.received!r}"
                self.received += piece
        return self.received

    async def end(self) -> bytes:
        """Reads to the end of the connection."""
        async with asyncio.timeout(30):
            while piece := await self._reader.read(65536):
                self.received += piece
        return self.received

    def abort(self) -> None:
        """Resets the connection."""
        self.writer.transport.abort()

    @property
    def events(self) -> list[str]:
        """The data of the events; chunk sizes are no lines of an event stream."""
        parser = EventStreamParser(1 << 20)
        blocks = parser.feed(self.received.partition(b"\r\n\r\n")[2])
        return [one.data.decode() for one in blocks if one.data is not None]
