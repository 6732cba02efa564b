"""A stream that ends in the middle of an answer is an error for those who read it, never the whole.

Real client libraries read half an answer; then the server drains. Only a response with a last chunk
is complete (RFC 9112 8), so none of them may report an end without an error.
"""

import asyncio
import json
import pathlib
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import httpx_sse
import openai
import pytest

from fastsse.config import Config
from fastsse.server import Server
from tests.libraries.node import MODULES, NODE

HERE = pathlib.Path(__file__).parent
TIMEOUT_S = 60
HALF = ["one", "two"]


def read_httpx(url: str) -> Iterator[str]:
    with httpx.Client(timeout=TIMEOUT_S) as client, client.stream("GET", url) as response:
        for line in response.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))["text"]


def read_httpx_sse(url: str) -> Iterator[str]:
    with (
        httpx.Client(timeout=TIMEOUT_S) as client,
        httpx_sse.connect_sse(client, "GET", url) as source,
    ):
        for event in source.iter_sse():
            if event.data:
                yield json.loads(event.data)["text"]


def read_openai(url: str) -> Iterator[str]:
    base, _, path = url.rpartition("/")
    client = openai.OpenAI(base_url=base, api_key="none", max_retries=0, timeout=TIMEOUT_S)
    stream: Any = client.get(
        path + "&fastsse=false",
        cast_to=object,
        stream=True,
        stream_cls=openai.Stream[object],
    )
    with client, stream:
        for chunk in stream:
            yield chunk["text"]


class Reading(threading.Thread):
    """Reads to the end; `failed` is the error that it ended with."""

    def __init__(self, texts: Iterator[str]) -> None:
        super().__init__()
        self.got: list[str] = []
        self.failed: Exception | None = None
        self._texts = texts
        self.start()

    def run(self) -> None:
        try:
            self.got.extend(self._texts)
        except Exception as error:
            self.failed = error


async def half_an_answer(server: Server, has_read: Callable[[], int]) -> None:
    """Publishes the first half, and drains when the client has it."""
    async with asyncio.timeout(TIMEOUT_S):
        while server.stream_count == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        for text in HALF:
            # The library `ai` takes no other form.
            part = {"type": "data-text", "data": {"text": text}, "text": text}
            server.publish("answer", json.dumps(part))
        while has_read() < len(HALF):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await server.drain(0)


@pytest.mark.parametrize(
    ("read", "error"),
    [
        (read_httpx, httpx.RemoteProtocolError),
        (read_httpx_sse, httpx.RemoteProtocolError),
        (read_openai, (httpx.RemoteProtocolError, openai.APIConnectionError)),
    ],
)
async def test_half_an_answer_is_an_error_for_a_python_library(
    read: Callable[[str], Iterator[str]], error: type[Exception] | tuple[type[Exception], ...]
) -> None:
    async with Server(Config(port=0, drain=0, retry="20ms")) as server:
        got: list[str] = []

        def noted() -> Iterator[str]:
            for text in read(server.addresses[0] + "/events?topic=answer"):
                got.append(text)
                yield text

        reading = Reading(noted())
        await half_an_answer(server, lambda: len(got))
        await asyncio.to_thread(reading.join, TIMEOUT_S)
    assert got == HALF
    assert isinstance(reading.failed, error)


async def test_an_answer_with_a_last_chunk_is_whole() -> None:
    """What proxies want that count the other as an error: then the two look the same."""
    async with Server(Config(port=0, drain=0, clean_end="always")) as server:
        reading = Reading(read_httpx(server.addresses[0] + "/events?topic=answer"))
        await half_an_answer(server, lambda: len(HALF))
        await asyncio.to_thread(reading.join, TIMEOUT_S)
    assert reading.failed is None


@pytest.mark.parametrize("client", ["fetch-event-source", "ai", "ag-ui", "langgraph"])
async def test_half_an_answer_is_an_error_for_a_node_library(client: str) -> None:
    if not MODULES.is_dir():
        pytest.skip("the packages of tests/node are not installed; `make test-all` does it")
    async with Server(Config(port=0, drain=0, retry="20ms")) as server:
        process = subprocess.Popen(  # noqa: ASYNC220
            [NODE, HERE / "endings.mjs", MODULES.parent, client, server.addresses[0]],
            stdout=subprocess.PIPE,
            text=True,
        )
        said: list[dict[str, Any]] = []

        def listen() -> None:
            assert process.stdout is not None
            said.extend(json.loads(line) for line in process.stdout)

        listening = threading.Thread(target=listen)
        listening.start()
        try:
            await half_an_answer(server, lambda: sum("text" in one for one in said))
            await asyncio.to_thread(listening.join, TIMEOUT_S)
        finally:
            process.kill()
            process.wait()
            listening.join()
            assert process.stdout is not None
            process.stdout.close()
    assert [one["text"] for one in said if "text" in one] == HALF
    assert said[-1].get("end") == "error", said
