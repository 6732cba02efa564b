"""Stands for a language model: the streams of OpenAI's and Anthropic's interfaces, word by word."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

PAUSE_S = float(os.environ.get("PAUSE_S", "0.1"))
stopped: list[str] = []
app = FastAPI()


def words_of(body: dict[str, Any]) -> list[str]:
    """The model repeats the question, with leading blanks as real models send them."""
    text: str = body["messages"][-1]["content"]
    return [f" {word}" for word in text.split(" ")]


async def openai(words: list[str]) -> AsyncIterator[str]:
    try:
        for word in [*words, None]:
            choice: dict[str, Any] = {"index": 0, "delta": {"content": word}}
            choice["finish_reason"] = None if word else "stop"
            chunk = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
            yield f"data: {json.dumps({**chunk, 'choices': [choice]})}\n\n"
            await asyncio.sleep(PAUSE_S)
        yield "data: [DONE]\n\n"
    except asyncio.CancelledError:
        stopped.append(" ".join(words))
        raise


async def anthropic(words: list[str]) -> AsyncIterator[str]:
    usage = {"input_tokens": 1, "output_tokens": 1}
    start = {"id": "m1", "type": "message", "role": "assistant", "content": [], "model": "m"}
    start |= {"stop_reason": None, "stop_sequence": None, "usage": usage}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    block = {"type": "text", "text": ""}
    events.append({"type": "content_block_start", "index": 0, "content_block": block})
    for word in words:
        delta = {"type": "text_delta", "text": word}
        events.append({"type": "content_block_delta", "index": 0, "delta": delta})
    events.append({"type": "content_block_stop", "index": 0})
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    events.append({"type": "message_delta", "delta": end, "usage": {"output_tokens": 1}})
    events.append({"type": "message_stop"})
    for event in events:
        yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
        await asyncio.sleep(PAUSE_S)


@app.post("/v1/chat/completions")
async def completions(request: Request) -> StreamingResponse:
    words = words_of(await request.json())
    return StreamingResponse(openai(words), media_type="text/event-stream")


@app.post("/v1/messages")
async def messages(request: Request) -> StreamingResponse:
    words = words_of(await request.json())
    return StreamingResponse(anthropic(words), media_type="text/event-stream")


@app.get("/stopped")
async def which() -> list[str]:
    """The answers that were cancelled."""
    return stopped
