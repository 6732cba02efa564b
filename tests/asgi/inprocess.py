"""Calls an ASGI application as a server would, in the loop of the test."""

import asyncio
from collections.abc import Callable
from typing import Any, Self

from fastsse.asgi import Mount
from fastsse.eventstream import EventStreamParser


class Call:
    """One request, whose task runs until it is closed.

    Attributes:
        status, headers: of the response, after `started`.
        is_complete: the application has sent the last part of the body.
    """

    def __init__(
        self,
        app: Any,
        target: str,
        *,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: bytes = b"",
    ) -> None:
        path, _, query = target.partition("?")
        self.scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()],
            "client": ("192.0.2.1", 4711),
        }
        self._app = app
        self._body: list[dict[str, Any]] = [{"type": "http.request", "body": body}]
        self._gone = asyncio.Event()
        self._more = asyncio.Condition()
        self.gate = asyncio.Event()  # While it is cleared, `send` does not return.
        self.gate.set()
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.is_complete = False

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()
        self.gate.set()
        await asyncio.gather(self.task, return_exceptions=True)

    def leave(self) -> None:
        """The client closes the connection."""
        self._gone.set()

    async def answered(self) -> Self:
        """Waits for the end of the application's call; raises what that raises."""
        async with asyncio.timeout(10):
            await self.task
        return self

    async def has(self, count: int) -> list[tuple[str, str]]:
        """The (type, data) of the first events, when there are as many."""
        async with asyncio.timeout(10):
            async with self._more:
                await self._more.wait_for(lambda: len(self.events) >= count)
        return self.events[:count]

    @property
    def events(self) -> list[tuple[str, str]]:
        """The events so far."""
        blocks = EventStreamParser(1 << 20).feed(self.body)
        return [(one.event.decode(), one.data.decode()) for one in blocks if one.data is not None]

    async def _run(self) -> None:
        try:
            await self._app(self.scope, self._receive, self._send)
        finally:
            async with self._more:
                self._more.notify_all()

    async def _receive(self) -> dict[str, Any]:
        if self._body:
            return self._body.pop()
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        await self.gate.wait()
        async with self._more:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            else:
                self.body += message["body"]
                self.is_complete = not message["more_body"]
            self._more.notify_all()


class Lifespan:
    """The lifespan that a server gives an application."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._in: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._out: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}}
        self.task = asyncio.create_task(self._app(scope, self._in.get, self._out.put))
        self.started = await self._ask("startup")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stopped = await self._ask("shutdown")
        await self.task

    async def _ask(self, what: str) -> str:
        self._in.put_nowait({"type": f"lifespan.{what}"})
        async with asyncio.timeout(20):
            message = await self._out.get()
        kind: str = message["type"]
        return kind


async def absent(scope: Any, receive: Any, send: Any) -> None:
    """An application that knows no path, and no lifespan."""
    if scope["type"] != "http":
        raise ValueError("HTTP only")
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b"absent", "more_body": False})


async def until(is_so: Callable[[], bool], within_s: float = 20) -> None:
    """Waits for something that no event reports."""
    async with asyncio.timeout(within_s):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def opened(mount: Mount, call: Call, streams: int = 1) -> None:
    """Waits until the stream of a call begins."""
    async with asyncio.timeout(10):
        async with call._more:
            await call._more.wait_for(lambda: call.body or call.task.done())
    assert mount.stream_count == streams
