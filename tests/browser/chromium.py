"""A real browser, without a window, controlled over its debugging pipe."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.loopback import LoopbackServer

TIMEOUT_S: Final = 45
PROGRAM: Final = shutil.which("chromium") or shutil.which("google-chrome")
_FLAGS: Final = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    "--remote-debugging-pipe",
)
# Every source that a page opens, and what came of it, in the page's own variables.
_WATCH: Final = """
window.seen ??= {}; window.sources ??= {};
window.watch = (name, url, types = ["message"], options = {}) => {
  const seen = window.seen[name] = [];
  const source = window.sources[name] = new EventSource(url, options);
  source.onopen = () => seen.push(["open"]);
  source.onerror = () => seen.push(["error", source.readyState]);
  for (const type of types)
    source.addEventListener(type, (event) => seen.push([type, event.data, event.lastEventId]));
};
"""


class Page:
    """An open page."""

    def __init__(self, browser: "Browser", session: str) -> None:
        self._browser = browser
        self._session = session

    async def ask(self, method: str, words: dict[str, Any]) -> Any:
        """Carries out a command of the DevTools protocol in this page."""
        return await self._browser.ask(method, words, self._session)

    async def run(self, script: str) -> Any:
        """What an expression comes to in the page; a promise is waited for."""
        answer = await self._browser.ask(
            "Runtime.evaluate",
            {"expression": script, "awaitPromise": True, "returnByValue": True},
            self._session,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def command(self, method: str, **words: Any) -> Any:
        """Carries out a command of the DevTools protocol on this page."""
        return await self._browser.ask(method, words, self._session)

    async def watch(self, name: str, url: str, *types: str, **options: bool) -> None:
        """Opens an EventSource; `seen` tells what it got."""
        words = ", ".join(map(json.dumps, (name, url, [*types] or ["message"], options)))
        await self.run(f"{_WATCH} watch({words})")

    async def seen(self, name: str) -> list[list[Any]]:
        """What a source saw: `["open"]`, `["error", readyState]`, `[type, data, id]`."""
        found: list[list[Any]] = await self.run(f"seen[{json.dumps(name)}]")
        return found

    async def until(self, name: str, is_so: Callable[[list[list[Any]]], bool]) -> list[list[Any]]:
        """Waits until a source saw what is asked for, and returns all that it saw."""
        seen: list[list[Any]] = []
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while not is_so(seen := await self.seen(name)):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"it never was so: {seen}") from None
        return seen

    async def settled(self, script: str, value: Any = True) -> None:
        """Waits until an expression comes to a value."""
        found = None
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while (found := await self.run(script)) != value:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{script} is {found!r}, not {value!r}") from None


class Browser:
    """The process's debugging pipe: questions and answers are JSON with a NUL behind.

    Attributes:
        pid: of the process, whose descendants render.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pid: int
    ) -> None:
        self.pid = pid
        self._reader = reader
        self._writer = writer
        self._count = 0
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._reading = asyncio.create_task(self._read())

    async def ask(self, method: str, words: dict[str, Any], session: str | None = None) -> Any:
        """Carries out a command of the DevTools protocol."""
        self._count += 1
        question = {"id": self._count, "method": method, "params": words}
        if session is not None:
            question["sessionId"] = session
        answer = self._asked[self._count] = asyncio.get_running_loop().create_future()
        self._writer.write(json.dumps(question).encode() + b"\0")
        async with asyncio.timeout(TIMEOUT_S):
            return await answer

    async def open(self, url: str) -> Page:
        """A new page, when it is loaded."""
        target = (await self.ask("Target.createTarget", {"url": "about:blank"}))["targetId"]
        words = {"targetId": target, "flatten": True}
        session = (await self.ask("Target.attachToTarget", words))["sessionId"]
        page = Page(self, session)
        await self.ask("Page.navigate", {"url": url}, session)
        await page.settled("location.href != 'about:blank' && document.readyState", "complete")
        return page

    async def close(self) -> None:
        """Closes the pipe; the browser ends then."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._writer.close()

    async def _read(self) -> None:
        try:
            while True:
                self._take(json.loads((await self._reader.readuntil(b"\0"))[:-1]))
        except asyncio.IncompleteReadError:
            for answer in self._asked.values():
                answer.set_exception(ConnectionError("the browser is gone"))

    def _take(self, message: dict[str, Any]) -> None:
        answer = self._asked.pop(message.get("id", 0), None)
        if answer is None or answer.done():
            return
        if "error" in message:
            answer.set_exception(AssertionError(message["error"]))
        else:
            answer.set_result(message["result"])


@asynccontextmanager
async def chromium(profile: Path, *flags: str) -> AsyncIterator[Browser]:
    """A browser of the test's own, with nothing from before; it is gone at the end. `flags` are
    added to those of every test."""
    assert PROGRAM is not None
    commands_out, commands_in = os.pipe()
    answers_out, answers_in = os.pipe()
    # It reads commands from descriptor 3 and answers on 4, whatever those are here.
    shell = f'exec "$@" 3<&{commands_out} 4>&{answers_in}'
    process = await asyncio.create_subprocess_exec(
        *("/bin/bash", "-c", shell, "browser", PROGRAM, *_FLAGS, *flags),
        f"--user-data-dir={profile}",
        pass_fds=(commands_out, answers_in),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "HOME": str(profile)},
    )
    os.close(commands_out)
    os.close(answers_in)
    browser = await _piped(answers_out, commands_in, process.pid)
    try:
        await _begun(browser)
        yield browser
    finally:
        await browser.close()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _begun(browser: Browser) -> None:
    """A browser that is there and can't be started is no fault of ours."""
    try:
        await browser.ask("Browser.getVersion", {})
    except (TimeoutError, OSError):
        pytest.skip("Chromium does not start here")


async def _piped(answers: int, commands: int, pid: int) -> Browser:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(answers, "rb", buffering=0)
    )
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, os.fdopen(commands, "wb", buffering=0)
    )
    return Browser(reader, asyncio.StreamWriter(transport, protocol, None, loop), pid)


class EmptySite(LoopbackServer):
    """An origin: one empty page, and perhaps a cookie."""

    def __init__(self, cookie: str = "") -> None:
        super().__init__()
        self._cookie = f"Set-Cookie: {cookie}\r\n" if cookie else ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        page = "<!doctype html><title>empty</title>"
        writer.write(
            f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n{self._cookie}"
            f"Content-Length: {len(page)}\r\nConnection: close\r\n\r\n{page}".encode()
        )
        await writer.drain()
