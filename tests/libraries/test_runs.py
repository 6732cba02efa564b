"""A run of a model over a drain and a restart: half an answer is an error, and a second reading is
whole, first from the store and then live."""

import asyncio
import json
import pathlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import pytest
from aiosseclient import aiosseclient

from fastsse.config import Config
from fastsse.server import Server
from tests.libraries.node import MODULES, NODE
from tests.libraries.test_endings import (
    HALF,
    HERE,
    TIMEOUT_S,
    read_httpx,
    read_httpx_sse,
    read_openai,
)
from tests.loopback import held_port

WHOLE = [*HALF, "three"]
QUERY = "&since=earliest"
#: What the SDK of Anthropic takes; the others do not look at it.
TYPE = "content_block_delta"
#: For TanStack AI a run without this is not over, whatever the response says.
LAST_KINDS = {"tanstack": "RUN_FINISHED"}

#: Reads a stream; returns its texts, and how it ended.
Reading = Callable[[str, str], Awaitable[tuple[list[str], str]]]


def read_anthropic(url: str) -> Iterator[str]:
    base, _, path = url.rpartition("/")
    client = anthropic.Anthropic(base_url=base, api_key="none", max_retries=0, timeout=TIMEOUT_S)
    stream: Any = client.get(
        "/" + path, cast_to=object, stream=True, stream_cls=anthropic.Stream[object]
    )
    with client, stream:
        for chunk in stream:
            yield chunk["text"]


def by_python(read: Callable[[str], Iterator[str]], more: str = "&fastsse=false") -> Reading:
    async def reading(url: str, query: str) -> tuple[list[str], str]:
        got: list[str] = []

        def collect() -> str:
            try:
                got.extend(read(f"{url}/events?topic=answer{query}{more}"))
            except Exception:
                return "error"
            return "whole"

        return got, await asyncio.to_thread(collect)

    return reading


async def by_aiosseclient(
    url: str, query: str, last_id: str | None = None
) -> tuple[list[str], str]:
    got = []
    try:
        async for event in aiosseclient(f"{url}/events?topic=answer&fastsse=false{query}", last_id):
            if event.data:
                got.append(json.loads(event.data)["text"])
    except Exception:
        return got, "error"
    return got, "whole"


async def started(library: str, url: str, query: str, *more: str) -> asyncio.subprocess.Process:
    """A Node program that reads the answer with a library, and writes what it got."""
    if not MODULES.is_dir():
        pytest.skip("the packages of tests/node are not installed; `make test-all` does it")
    words = (HERE / "endings.mjs", MODULES.parent, library, url, query, *more)
    return await asyncio.create_subprocess_exec(NODE, *words, stdout=asyncio.subprocess.PIPE)


def said(output: bytes) -> tuple[list[str], str]:
    """The texts that a program of `started` got, and how that ended."""
    lines = [json.loads(line) for line in output.splitlines()]
    texts = [one["text"] for one in lines if "text" in one]
    return texts, "idle" if {"idle": True} in lines else lines[-1]["end"]


def by_node(library: str) -> Reading:
    async def reading(url: str, query: str, *more: str) -> tuple[list[str], str]:
        process = await started(library, url, query, *more)
        async with asyncio.timeout(TIMEOUT_S):
            output, _ = await process.communicate()
        return said(output)

    return reading


async def by_tanstack(url: str, _: str) -> tuple[list[str], str]:
    """Its query is its own: `offset=-1`."""
    return await by_node("tanstack")(url, "")


READERS: dict[str, Reading] = {
    "httpx": by_python(read_httpx),
    "httpx-sse": by_python(read_httpx_sse),
    "openai": by_python(read_openai, more=""),
    "anthropic": by_python(read_anthropic),
    "aiosseclient": by_aiosseclient,
    "fetch-event-source": by_node("fetch-event-source"),
    "ai": by_node("ai"),
    "ag-ui": by_node("ag-ui"),
    "langgraph": by_node("langgraph"),
    "tanstack": by_tanstack,
}


@asynccontextmanager
async def serving(folder: pathlib.Path, port: int = 0) -> AsyncIterator[Server]:
    store = f"sqlite:{folder / 'runs.db'}"
    async with Server(Config(port=port, drain=0, retry="20ms", access_lines=0, store=store)) as one:
        yield one


async def publish(server: Server, text: str, *, end: bool = False, kind: str = "data-text") -> str:
    # The library `ai` takes no other form.
    part = {"type": kind, "data": {"text": text}, "text": text}
    return await server.publish_later("answer", json.dumps(part), event=TYPE, end=end)


async def is_read(server: Server) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while server.stream_count == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("library", READERS)
async def test_a_run_that_a_restart_cut_is_an_error_and_then_whole(
    tmp_path: pathlib.Path, library: str
) -> None:
    read = READERS[library]
    async with serving(tmp_path) as server:
        for text in HALF:
            await publish(server, text)
        reading = asyncio.create_task(read(server.addresses[0], QUERY))
        await is_read(server)
        await server.drain(0)
        got, ending = await asyncio.wait_for(reading, TIMEOUT_S)
        assert (got, ending) == (HALF[: len(got)], "error")
    async with serving(tmp_path) as server:
        reading = asyncio.create_task(read(server.addresses[0], QUERY))
        await is_read(server)
        await publish(server, WHOLE[-1], end=True, kind=LAST_KINDS.get(library, "data-text"))
        assert await asyncio.wait_for(reading, TIMEOUT_S) == (WHOLE, "whole")


@pytest.mark.parametrize("library", ["aiosseclient", "langgraph"])
async def test_a_library_that_sends_its_last_id_goes_on_after_a_restart(
    tmp_path: pathlib.Path, library: str
) -> None:
    async with serving(tmp_path) as server:
        last = [await publish(server, text) for text in HALF][-1]
    async with serving(tmp_path) as server:
        read: Any = READERS[library]
        reading = asyncio.create_task(read(server.addresses[0], "", last))
        await is_read(server)
        await publish(server, WHOLE[-1], end=True)
        assert await asyncio.wait_for(reading, TIMEOUT_S) == (WHOLE[2:], "whole")


async def test_tanstack_goes_on_by_itself_over_a_drain_and_a_restart(
    tmp_path: pathlib.Path,
) -> None:
    with held_port() as held:
        port: int = held.getsockname()[1]
        async with serving(tmp_path, port) as server:
            for text in HALF:
                await publish(server, text)
            # It may return two hundred times without an event; it does not before the first one.
            process = await started("tanstack", server.addresses[0], "", "200")
            async with asyncio.timeout(TIMEOUT_S):
                got = [await process.stdout.readline() for _ in HALF]  # type: ignore[union-attr]
            await server.drain(0)
        async with serving(tmp_path, port) as server:
            await is_read(server)
            await publish(server, WHOLE[-1], end=True, kind=LAST_KINDS["tanstack"])
            rest, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
            assert said(b"".join([*got, rest])) == (WHOLE, "whole")


async def test_a_chat_that_is_over_is_idle_for_the_ai_sdk(tmp_path: pathlib.Path) -> None:
    """Its page asks for a stream to go on with, and gets 204 behind the end."""
    async with serving(tmp_path) as server:
        last = [await publish(server, text, end=text == WHOLE[-1]) for text in WHOLE][-1]
        url = server.addresses[0]
        assert await READERS["ai"](url, QUERY) == (WHOLE, "whole")
        assert await READERS["ai"](url, f"&last_event_id={last}") == ([], "idle")
