"""A real Firefox, without a window, driven over its Marionette port."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from tests import endings

TIMEOUT_S: Final = 60
PROGRAM: Final = shutil.which("firefox-esr") or shutil.which("firefox")
_PREFERENCES: Final = {
    "marionette.port": 0,  # A free one, which it writes into the profile.
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "app.update.auto": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "browser.aboutwelcome.enabled": False,
    "toolkit.telemetry.enabled": False,
}


class Firefox:
    """A browser's Marionette connection: `LENGTH:[0, id, command, parameters]`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._count = 0

    async def ask(self, command: str, words: dict[str, Any]) -> Any:
        """Carries out a command, one after the other."""
        self._count += 1
        text = json.dumps([0, self._count, command, words]).encode()
        self._writer.write(b"%d:%b" % (len(text), text))
        async with asyncio.timeout(TIMEOUT_S):
            _, number, error, result = await self.read()
        assert number == self._count
        assert error is None, error
        return result

    async def read(self) -> Any:
        """The next message."""
        size = int((await self._reader.readuntil(b":"))[:-1])
        return json.loads(await self._reader.readexactly(size))

    async def run(self, script: str) -> Any:
        """What an async function's body returns in the page."""
        whole = f"const done = arguments[0]; (async () => {{ {script} }})()"
        whole += ".then(done, (error) => done('failed: ' + error));"
        words = {"script": whole, "args": [], "sandbox": None, "newSandbox": False}
        return (await self.ask("WebDriver:ExecuteAsyncScript", words))["value"]

    async def settled(self, script: str, value: Any = True) -> None:
        """Waits until an expression comes to a value."""
        found = None
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while (found := await self.run(f"return {script}")) != value:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{script} is {found!r}, not {value!r}") from None


@asynccontextmanager
async def firefox(profile: Path) -> AsyncIterator[Firefox]:
    """A browser of the test's own; it is gone at the end."""
    assert PROGRAM is not None
    _prepare(profile)
    process = await asyncio.create_subprocess_exec(
        *(PROGRAM, "--headless", "--marionette", "--no-remote", "--profile", str(profile)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "HOME": str(profile), "MOZ_DISABLE_CONTENT_SANDBOX": "1"},
        start_new_session=True,
    )
    endings.watch(process.pid)
    try:
        port = await _port(profile, process)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
        browser = Firefox(reader, writer)
        await browser.read()  # Its greeting.
        await browser.ask("WebDriver:NewSession", {})
        yield browser
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await browser.ask("Marionette:Quit", {"flags": ["eForceQuit"]})
        writer.close()
    finally:
        try:
            async with asyncio.timeout(20):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            await process.wait()
        endings.forget(process.pid)


def _prepare(profile: Path) -> None:
    profile.mkdir()
    lines = [f"user_pref({json.dumps(k)}, {json.dumps(v)});" for k, v in _PREFERENCES.items()]
    (profile / "user.js").write_text("\n".join(lines))


def _reported(profile: Path) -> int:
    """The port in the profile; 0 before it is there."""
    file = profile / "MarionetteActivePort"
    return int(file.read_text().strip() or 0) if file.exists() else 0


async def _port(profile: Path, process: asyncio.subprocess.Process) -> int:
    """Where it listens; a browser that does not start is no fault of ours."""
    with suppress(TimeoutError):
        async with asyncio.timeout(TIMEOUT_S):
            while process.returncode is None:
                if port := _reported(profile):
                    return port
                await asyncio.sleep(0.05)
    process.kill()
    pytest.skip("Firefox does not start here")
