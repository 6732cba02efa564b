"""An application of chats as docs/guides/token-streams.md has it: a `POST` begins a run, and its
answer, a 303, is the run's stream. It runs in uvicorn and in the loop of the test."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

import fastsse

TIMEOUT_S = 45
PAGE = (
    "<!doctype html><title>chat</title><div id=root></div>"
    "<script>window.stored = %s;</script><script src=page.js></script>"
)


class Chats:
    """What a database would keep, and the routes.

    Attributes:
        asked: the last message of each `POST` that began a run.
        requests: how many `POST`s there were.
        run: the newest run, while its answer is kept; or None.
        messages: what a page that is loaded begins with.
    """

    def __init__(self, script: str) -> None:
        self.api = FastAPI()
        self.asked: list[Any] = []
        self.requests = 0
        self.run: str | None = None
        self.messages: list[Any] = []
        self._script = script
        self._runs: set[str] = set()
        self.api.get("/")(self._page)
        self.api.get("/page.js")(self._program)
        self.api.post("/api/chat")(self._say)
        self.api.get("/api/chat/{chat}/stream")(self._again)

    async def _page(self) -> HTMLResponse:
        return HTMLResponse(PAGE % json.dumps(self.messages).replace("<", "\\u003c"))

    async def _program(self) -> Response:
        return Response(self._script, media_type="text/javascript")

    async def _say(self, request: Request) -> RedirectResponse:
        self.requests += 1
        # A client that chose the run's name comes back with it.
        run = request.headers.get("X-Run-Id", f"run-{self.requests}")
        if run not in self._runs:
            self._runs.add(run)
            self.run = run
            self.asked.append((await request.json())["messages"][-1])
        return self._stream(run)

    async def _again(self) -> Response:
        return Response(status_code=204) if self.run is None else self._stream(self.run)

    @staticmethod
    def _stream(run: str) -> RedirectResponse:
        return RedirectResponse(f"/events?topic=run/{run}&offset=-1&fastsse=false", 303)

    @contextlib.asynccontextmanager
    async def served(self, port: int, store: Path) -> AsyncIterator[fastsse.Mount]:
        """Serves on a port; the end drains, and the next server goes on with the store."""
        config = fastsse.Config(store=f"sqlite:{store}", drain=0, retry="50ms")
        mount = fastsse.mount(self.api, config=config)
        server = uvicorn.Server(uvicorn.Config(mount, port=port, log_level="warning"))
        serving = asyncio.create_task(server.serve())
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while not server.started:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            yield mount
        finally:
            server.should_exit = True
            await asyncio.wait_for(serving, TIMEOUT_S)

    async def has_begun(self) -> None:
        """Waits until there is a run."""
        async with asyncio.timeout(TIMEOUT_S):
            while self.run is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def publish(self, mount: fastsse.Mount, *parts: Any, end: bool = False) -> None:
        """Publishes parts of the run's answer; the last one may end it."""
        assert self.run is not None
        for n, part in enumerate(parts, 1):
            data = part if isinstance(part, str) else json.dumps(part)
            await mount.publish(f"run/{self.run}", data, end=end and n == len(parts))
