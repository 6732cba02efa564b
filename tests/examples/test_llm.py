"""examples/llm: many viewers read one answer, late and after a cut, with the SDKs too."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from anthropic.types import RawMessageStreamEvent
from openai.types.chat import ChatCompletionChunk

from fastsse.client import AsyncClient
from tests.loopback import held_port

ROOT = Path(__file__).parents[2]
TEXT = "every answer is a stream"
WHOLE = "".join(f" {word}" for word in TEXT.split(" "))


@asynccontextmanager
async def program(app: str, **environment: str) -> AsyncIterator[str]:
    with held_port() as held:
        port = held.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "uvicorn", "--port", str(port), app),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )
        try:
            async with httpx.AsyncClient() as client, asyncio.timeout(60):
                while True:
                    try:
                        await client.get(f"http://127.0.0.1:{port}/docs")
                        break
                    except httpx.TransportError:
                        assert process.returncode is None
                        await asyncio.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
                await process.wait()


class Example:
    """The running example."""

    def __init__(self, url: str, model_url: str) -> None:
        self.url = url
        self.client = httpx.AsyncClient(base_url=url, timeout=20)
        self.model_url = model_url

    async def begin(self, text: str = TEXT, kind: str = "openai") -> str:
        run: str = (await self.client.post("/runs", json={"text": text, "kind": kind})).json()[
            "run"
        ]
        return run

    async def replay(self, run: str) -> dict[str, Any]:
        """The answer so far, as one page of JSON, and whether it is over."""
        page = (
            await self.client.get(f"/events?topic=run/{run}&last_event_id=earliest&wait=0")
        ).json()
        said = [text_of(event["data"]) for event in page["events"] if event["event"] != "error"]
        return {"text": "".join(said), "is_over": page["ended"]}

    async def over(self, run: str) -> dict[str, Any]:
        """Waits for the end of a run."""
        async with asyncio.timeout(30):
            while not (found := await self.replay(run))["is_over"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return found

    def path(self, run: str) -> str:
        return f"/events?topic=run/{run}&last_event_id=earliest&fastsse=false"


@pytest.fixture
async def example(request: pytest.FixtureRequest) -> AsyncIterator[Example]:
    given: dict[str, str] = getattr(request, "param", {})
    async with AsyncExitStack() as stack:
        pause = given.get("PAUSE_S", "0.02")
        model = await stack.enter_async_context(program("examples.model:app", PAUSE_S=pause))
        environment = {"UPSTREAM": f"{model}/v1"} | given
        url = await stack.enter_async_context(program("examples.llm.app:app", **environment))
        example = Example(url, model)
        stack.push_async_callback(example.client.aclose)
        yield example


def text_of(data: str) -> str:
    """The words of one event, of either kind."""
    event = {} if data == "[DONE]" else json.loads(data)
    if event.get("choices"):
        return event["choices"][0]["delta"].get("content") or ""
    found: str = event.get("delta", {}).get("text", "")
    return found


def read_openai(example: Example, run: str) -> str:
    client = openai.OpenAI(base_url=example.url, api_key="none", max_retries=0, timeout=20)
    stream = client.get(
        example.path(run),
        cast_to=ChatCompletionChunk,
        stream=True,
        stream_cls=openai.Stream[ChatCompletionChunk],
    )
    with client, stream:
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


def read_anthropic(example: Example, run: str) -> str:
    client = anthropic.Anthropic(base_url=example.url, api_key="none", max_retries=0, timeout=20)
    stream = client.get(
        example.path(run),
        cast_to=RawMessageStreamEvent,  # type: ignore[arg-type]
        stream=True,
        stream_cls=anthropic.Stream[RawMessageStreamEvent],
    )
    with client, stream:
        return "".join(
            event.delta.text
            for event in stream
            if event.type == "content_block_delta" and event.delta.type == "text_delta"
        )


READERS = {"openai": read_openai, "anthropic": read_anthropic}


@pytest.mark.parametrize("kind", READERS)
async def test_sdks_read_a_run_live_and_late(example: Example, kind: str) -> None:
    run = await example.begin(kind=kind)
    live = [asyncio.to_thread(READERS[kind], example, run) for _ in range(3)]
    assert await asyncio.gather(*live) == [WHOLE] * 3
    assert await asyncio.to_thread(READERS[kind], example, run) == WHOLE
    assert await example.over(run) == {"text": WHOLE, "is_over": True}


@pytest.mark.parametrize("example", [{"PAUSE_S": "0.01"}], indirect=True)
async def test_reader_that_is_cut_again_and_again_gets_every_token_once(example: Example) -> None:
    text = " ".join(f"w{number}" for number in range(100))
    run = await example.begin(text)
    got: list[str] = []
    last_event_id = "earliest"
    async with AsyncClient(example.url) as client:
        while not got or got[-1] != "[DONE]":
            events = client.subscribe(f"run/{run}", last_event_id=last_event_id)
            for _ in range(7):
                try:
                    event = await anext(events)
                except StopAsyncIteration:
                    break
                last_event_id = event.id
                if not event.is_control:
                    got.append(event.data)
            await events.aclose()
    assert len(got) == 102
    assert (await example.over(run))["text"] == "".join(f" {word}" for word in text.split(" "))


@pytest.mark.parametrize("example", [{"PAUSE_S": "0.05", "CANCEL_AFTER_S": "3"}], indirect=True)
async def test_run_is_cancelled_when_its_last_viewer_has_left(example: Example) -> None:
    long = " ".join(["word"] * 400)
    run = await example.begin(long)
    async with AsyncClient(example.url) as client, client.subscribe(f"run/{run}") as events:
        for _ in range(70):  # Longer than the time after which a run without viewers is cancelled.
            await anext(events)
        assert not (await example.replay(run))["is_over"]
    await example.over(run)
    async with asyncio.timeout(20):
        while not (await example.client.get(f"{example.model_url}/stopped")).json():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    with pytest.raises(openai.APIError, match="cancelled"):
        await asyncio.to_thread(read_openai, example, run)


async def test_run_that_is_over_can_not_be_cancelled(example: Example) -> None:
    run = await example.begin()
    await example.over(run)
    assert (await example.client.delete("/runs/unknown")).json() == {"cancelled": False}
    assert (await example.client.delete(f"/runs/{run}")).json() == {"cancelled": False}


@pytest.mark.parametrize("example", [{"UPSTREAM": "http://127.0.0.1:9"}], indirect=True)
async def test_model_that_is_away_leaves_an_empty_run_with_an_error(example: Example) -> None:
    run = await example.begin()
    assert (await example.over(run))["text"] == ""
    with pytest.raises(openai.APIError, match="broke"):
        await asyncio.to_thread(read_openai, example, run)
