"""Readers of token streams, and libraries that are cut before their first event: what each needs
to have set, by what it does with the opening, with control events and with an end."""

import asyncio
import json
import pathlib
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import httpx_sse
import openai
import pytest

from fastsse.config import Config
from fastsse.server import Server
from tests.libraries.node import reading
from tests.loopback import Relay
from tests.mercure.client import KEY, in_a_while, token

CHUNKS = [{"jsonrpc": "2.0", "method": f"chunk/{number}"} for number in range(3)]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server(Config(port=0, drain=0, retry="20ms", access_lines=0)) as one:
        yield one


async def until_streams(server: Server, count: int) -> None:
    async with asyncio.timeout(60):
        while server.stream_count != count:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def openai_chunks(url: str) -> Iterator[object]:
    origin, _, path = url.partition("/events")
    client = openai.OpenAI(api_key="none", base_url=origin, max_retries=0)
    with client.get(
        f"/events{path}", cast_to=object, stream=True, stream_cls=openai.Stream[object]
    ) as stream:
        yield from stream


def httpx_sse_chunks(url: str) -> Iterator[object]:
    with httpx.Client() as client, httpx_sse.connect_sse(client, "GET", url) as source:
        for event in source.iter_sse():
            yield event.json()


@pytest.mark.parametrize("chunks", [openai_chunks, httpx_sse_chunks])
async def test_a_python_reader_of_chunks_needs_nothing_set(server: Server, chunks: object) -> None:
    def read() -> list[object]:
        got: list[object] = []
        for chunk in chunks(f"{server.addresses[0]}/events?topic=answer"):  # type: ignore[operator]
            got.append(chunk)
            if len(got) == len(CHUNKS):
                break
        return got

    task = asyncio.create_task(asyncio.to_thread(read))
    await until_streams(server, 1)
    for chunk in CHUNKS:
        server.publish("answer", chunk)
    assert await asyncio.wait_for(task, 60) == CHUNKS


@pytest.mark.parametrize("library", ["openai", "fetching"])
async def test_a_node_reader_of_chunks_needs_nothing_set(
    server: Server, tmp_path: pathlib.Path, library: str
) -> None:
    url = f"{server.addresses[0]}/events?topic=answer"
    async with reading(tmp_path, library, url) as program:
        await until_streams(server, 1)
        for chunk in CHUNKS:
            server.publish("answer", chunk)
        assert list(map(json.loads, await program.until("data", 3))) == CHUNKS


@pytest.mark.parametrize("library", ["eventsource", "polyfill", "client", "mcp"])
async def test_a_library_that_is_cut_before_its_first_event_resumes_with_initial_id_data(
    server: Server, tmp_path: pathlib.Path, library: str
) -> None:
    async with Relay(server.addresses[0]) as relay:
        url = f"{relay.url}/events?topic=answer&initial_id=data"
        async with reading(tmp_path, library, url) as program:
            await program.until("id")  # Of the opening: no event was published.
            relay.cut()
            await until_streams(server, 0)
            server.publish("answer", CHUNKS[0])
            while CHUNKS[0] not in map(_parsed, program.all("data")):
                await program.until("data", len(program.all("data")) + 1)
            assert relay.connections >= 2


def _parsed(text: str) -> object:
    return json.loads(text) if text else None


@pytest.mark.parametrize("library", ["eventsource", "polyfill"])
async def test_a_client_with_an_expired_token_stops(tmp_path: pathlib.Path, library: str) -> None:
    """It comes back once, with a cursor, and is answered 401."""
    config = Config(port=0, drain=0, retry="20ms", jwt_key=KEY, access_lines=0)
    async with Server(config) as server, Relay(server.addresses[0]) as relay:
        mine = token(subscribe=["a"], exp=in_a_while(3600))
        url = f"{relay.url}/events?topic=a&initial_id=data&authorization={mine}"
        async with reading(tmp_path, library, url) as program:
            await program.until("id")
            worker = server._worker
            worker.frontend._endpoints._guard.verifier._now_s = lambda: time.time() + 3601
            worker._sender.advance_clock(3_601_000)
            await until_streams(server, 0)
            await program.until("closed")


async def test_a_post_that_reads_a_stream_publishes_nothing(server: Server) -> None:
    seen = server.publish("answer", "before")
    async with httpx.AsyncClient() as client:
        url = f"{server.addresses[0]}/events?topic=answer"
        async with httpx_sse.aconnect_sse(client, "POST", url, json={"prompt": "secret"}) as source:
            assert source.response.status_code == 406
            with pytest.raises(httpx_sse.SSEError):
                await anext(source.aiter_sse())
        async with client.stream("GET", url + "&last=9&initial_id=false") as response:
            text = ""
            async for part in response.aiter_text():
                text += part
                if seen in text and text.endswith("\n\n"):
                    break
    assert "secret" not in text


async def test_without_control_events_a_reader_gets_an_error_in_place_of_a_gap(
    server: Server,
) -> None:
    url = f"{server.addresses[0]}/events?topic=answer&last_event_id=unknown"
    with pytest.raises((openai.APIError, httpx.TransportError)):
        await asyncio.to_thread(list, openai_chunks(url + "&fastsse=false"))
