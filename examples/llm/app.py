"""Relays the answers of a language model to many viewers."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Literal

import httpx
from fastapi import FastAPI
from fastapi.responses import FileResponse
from pydantic import BaseModel

import fastsse
from examples import model as stand_in
from fastsse.client import RelayBroken

# Without an UPSTREAM the stand-in below answers.
UPSTREAM = os.environ.get("UPSTREAM", "http://127.0.0.1:8000/model/v1")
CANCEL_AFTER_S = float(os.environ.get("CANCEL_AFTER_S", "10"))
PATHS = {"openai": "/chat/completions", "anthropic": "/messages"}

model = httpx.AsyncClient(base_url=UPSTREAM, timeout=httpx.Timeout(10, read=120))
tasks: dict[str, asyncio.Task[None]] = {}


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    await model.aclose()


api = FastAPI(lifespan=lifespan)
api.mount("/model", stand_in.app)


class Prompt(BaseModel):
    text: str
    kind: Literal["openai", "anthropic"] = "openai"


@api.get("/")
async def page() -> FileResponse:
    return FileResponse(Path(__file__).with_name("page.html"))


@api.post("/runs")
async def begin(prompt: Prompt) -> dict[str, str]:
    run = uuid.uuid4().hex
    tasks[run] = asyncio.create_task(relayed(f"run/{run}", prompt))
    tasks[run].add_done_callback(lambda _: tasks.pop(run))
    return {"run": run}


@api.delete("/runs/{run}")
async def cancel(run: str) -> dict[str, bool]:
    return {"cancelled": run in tasks and tasks[run].cancel()}


async def relayed(topic: str, prompt: Prompt) -> None:
    """Copies an answer to its topic, as long as somebody follows it."""
    messages = [{"role": "user", "content": prompt.text}]
    body = {"model": "any", "max_tokens": 1024, "messages": messages, "stream": True}
    # A run that breaks off has said so in its topic.
    with suppress(RelayBroken):
        answer = model.stream("POST", PATHS[prompt.kind], json=body)
        await fastsse.relay(answer, topic, app, unwatched_s=CANCEL_AFTER_S)


RUNS = {"match": "run/*", "history_events": 20_000, "history_bytes": "4MiB", "history_age": "1h"}
app = fastsse.mount(api, "/events", config=fastsse.Config(topics=[RUNS]))
