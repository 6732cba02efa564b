"""What the examples share: a page, and the event server that it reads, in one command.

The page is served on one port, the events on another, as in real life. `/hub.js` says where the
events are, as does `{{hub}}` in the page. `/lib/…` is the folder that FASTSSE_LIB names.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import fastsse
from fastsse.config import Config

_TYPES: Final = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
# Nothing of another origin runs, whatever an event holds.
_POLICY: Final = (
    "default-src 'none'; script-src 'self' {hub} {scripts}; connect-src {hub}; "
    "style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


class Example(NamedTuple):
    """An example.

    Attributes:
        folder: its page.html and other files of the page.
        publish: runs while the server does; None where pages publish.
        options: of the event server.
        scripts: more sources of scripts, for the page's Content-Security-Policy.
    """

    folder: Path
    publish: Callable[[fastsse.Server], Awaitable[None]] | None = None
    options: dict[str, Any] = {}  # noqa: RUF012
    scripts: str = ""


@asynccontextmanager
async def playing(
    example: Example, port: int = 0, hub_port: int = 0
) -> AsyncIterator[tuple[str, fastsse.Server]]:
    """Runs an example; the address of its page, and its event server."""
    hub_url = ""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].decode().split("?")[0]
            writer.write(_answer(example, path, hub_url))
            await writer.drain()
        writer.close()

    pages = await asyncio.start_server(answer, "127.0.0.1", port)
    page = f"http://127.0.0.1:{pages.sockets[0].getsockname()[1]}"
    config = Config(**{"port": hub_port, "cors_origins": [page], "drain": "0s", **example.options})
    try:
        async with fastsse.Server(config) as hub:
            hub_url = hub.addresses[0]
            publishing = asyncio.ensure_future(example.publish(hub)) if example.publish else None
            try:
                yield page, hub
            finally:
                if publishing is not None:
                    publishing.cancel()
                    await asyncio.gather(publishing, return_exceptions=True)
    finally:
        pages.close()


def run(example: Example) -> None:
    """Plays an example until Ctrl-C."""

    async def play() -> None:
        async with playing(example, 8000, 8080) as (page, _):
            print(f"Open {page}/ in two windows; Ctrl-C ends it.", flush=True)
            await asyncio.Event().wait()

    with suppress(KeyboardInterrupt):
        asyncio.run(play())


def _answer(example: Example, path: str, hub: str) -> bytes:
    body, kind = _file(example, path, hub)
    lines = (
        f"HTTP/1.1 {200 if kind else 404} OK",
        f"Content-Type: {kind or 'text/plain'}; charset=utf-8",
        f"Content-Security-Policy: {_POLICY.format(hub=hub, scripts=example.scripts)}",
        "X-Content-Type-Options: nosniff",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    return "\r\n".join((*lines, "\r\n")).encode() + body


def _file(example: Example, path: str, hub: str) -> tuple[bytes, str]:
    """A file of the page with its type; no type where there is none."""
    if path == "/hub.js":
        text = f"export const hubUrl = '{hub}';\nexport * from '{hub}/client.js';\n"
        return text.encode(), _TYPES[".js"]
    folder, name = example.folder, "page.html" if path == "/" else path.removeprefix("/")
    if name.startswith("lib/"):
        folder, name = (
            Path(os.environ.get("FASTSSE_LIB", "node_modules")),
            name.removeprefix("lib/"),
        )
    file = (folder / name).resolve()
    if folder.resolve() not in file.parents or file.suffix not in _TYPES or not file.is_file():
        return b"not here\n", ""
    body = file.read_bytes()
    if path == "/":
        body = body.replace(b"{{hub}}", hub.encode())
    return body, _TYPES[file.suffix]
