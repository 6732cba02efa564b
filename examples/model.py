"""Stands for a language model: the streams of OpenAI's and Anthropic's interfaces, word by word."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

PAUSE_S = float(os.environ.get("PAUSE_S", "0.1"))
stopped: list[str] = []
app = FastAPI()


def openai(words: list[str]) -> Iterator[str]:
    chunk = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    for word in [*words, None]:
        choice = {"index": 0, "delta": {"content": word}, "finish_reason": None if word else "stop"}
        yield f"data: {json.dumps({**chunk, 'choices': [choice]})}\n\n"
    yield "data: [DONE]\n\n"


def anthropic(words: list[str]) -> Iterator[str]:
    def event(kind: str, **fields: Any) -> str:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n"

    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "m1", "type": "message", "role": "assistant", "content": [], "model": "m"}
    yield event("message_start", message={**message, "usage": usage})
    yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    for word in words:
        yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": word})
    yield event("content_block_stop", index=0)
    yield event("message_delta", delta={"stop_reason": "end_turn"}, usage=usage)
    yield event("message_stop")


@app.post("/v1/{path:path}")
async def answer(path: str, request: Request) -> StreamingResponse:
    """Repeats the question, with leading blanks as real models send them."""
    question: str = (await request.json())["messages"][-1]["content"]
    kind = anthropic if path == "messages" else openai

    async def paced() -> AsyncIterator[str]:
        try:
            for text in kind([f" {word}" for word in question.split(" ")]):
                yield text
                await asyncio.sleep(PAUSE_S)
        except asyncio.CancelledError:
            stopped.append(question)
            raise

    return StreamingResponse(paced(), media_type="text/event-stream")


@app.get("/stopped")
async def which() -> list[str]:
    """The questions whose answers were cancelled."""
    return stopped
