"""Relays the answers of a language model to many viewers."""

import asyncio
import json
import os
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import httpx
from fastapi import FastAPI, HTTPException
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

import fastsse
from fastsse.client import RelayBroken

UPSTREAM = os.environ.get("UPSTREAM", "http://127.0.0.1:9000/v1")
CANCEL_AFTER_S = float(os.environ.get("CANCEL_AFTER_S", "10"))
PATHS = {"openai": "/chat/completions", "anthropic": "/messages"}
RUNS_MAX = 1_000
PAGE = Path(__file__).with_name("page.html")

model = httpx.AsyncClient(base_url=UPSTREAM, timeout=httpx.Timeout(10, read=120))
#: What each run has said so far, the newest runs.
answers: OrderedDict[str, list[str]] = OrderedDict()
tasks: dict[str, asyncio.Task[None]] = {}


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield
    for task in list(tasks.values()):
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    await model.aclose()


api = FastAPI(lifespan=lifespan)


class Prompt(BaseModel):
    text: str
    kind: Literal["openai", "anthropic"] = "openai"


@api.get("/", response_class=HTMLResponse)
async def page() -> str:
    return PAGE.read_text("utf-8")


@api.post("/runs")
async def begin(prompt: Prompt) -> dict[str, str]:
    run = uuid.uuid4().hex
    answers[f"run/{run}"] = []
    while len(answers) > RUNS_MAX:
        answers.popitem(last=False)
    task = asyncio.create_task(relayed(f"run/{run}", prompt))
    tasks[run] = task
    task.add_done_callback(lambda _: tasks.pop(run, None))
    return {"run": run}


@api.get("/runs/{run}")
async def replay(run: str) -> dict[str, Any]:
    """The answer so far."""
    said = answers.get(f"run/{run}")
    if said is None:
        raise HTTPException(404, "There is no such run.")
    return {"run": run, "text": "".join(said), "is_over": run not in tasks}


@api.delete("/runs/{run}")
async def cancel(run: str) -> dict[str, bool]:
    task = tasks.get(run)
    return {"cancelled": task is not None and task.cancel()}


async def relayed(topic: str, prompt: Prompt) -> None:
    """Copies an answer to its topic, as long as somebody follows it."""
    body = {
        "model": os.environ.get("MODEL", "stand-in"),
        "max_tokens": 1024,
        "messages": [{"role": "user", "content": prompt.text}],
        "stream": True,
    }
    copying = asyncio.create_task(copied(topic, PATHS[prompt.kind], body))
    leaving = asyncio.create_task(app.unwatched(topic, CANCEL_AFTER_S))
    try:
        await asyncio.wait((copying, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        copying.cancel()
        with suppress(asyncio.CancelledError, RelayBroken):
            await copying


async def copied(topic: str, path: str, body: dict[str, Any]) -> None:
    async with model.stream("POST", path, json=body) as response:
        await fastsse.relay(response, topic, app)


def text_of(data: str) -> str:
    """The words of one event, of either kind."""
    if data == "[DONE]":
        return ""
    event = json.loads(data)
    if event.get("choices"):
        return event["choices"][0]["delta"].get("content") or ""
    return event.get("delta", {}).get("text", "")


app = fastsse.mount(
    api,
    "/events",
    config=fastsse.Config(
        topics=[{"match": "run/*", "history_events": 20_000, "history_bytes": "4MiB"}],
        history_age="1h",
    ),
)


@app.on()
def remember(event: fastsse.HandledEvent) -> None:
    said = answers.get(event.topics[0])
    if said is not None and event.event != "error":
        said.append(text_of(event.data))
