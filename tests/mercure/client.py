"""A client of the Mercure protocol, of bytes, so that nothing is hidden."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import jwt

from fastsse.server import Server
from tests.http.raw import Answer, Stream, connected, request

KEY = "a secret that only tests use, 32 bytes or more"
HUB = "/.well-known/mercure"
FORM = "Content-Type: application/x-www-form-urlencoded"


def token(
    publish: list[str] | None = None,
    subscribe: list[str] | None = None,
    *,
    key: str = KEY,
    payload: object = None,
    **claims: Any,
) -> str:
    """A token as an application makes it."""
    mercure: dict[str, object] = {}
    if publish is not None:
        mercure["publish"] = publish
    if subscribe is not None:
        mercure["subscribe"] = subscribe
    if payload is not None:
        mercure["payload"] = payload
    return jwt.encode({"mercure": mercure, **claims}, key, "HS256")


def bearer(*args: Any, **kwargs: Any) -> str:
    """The header with such a token."""
    return f"Authorization: Bearer {token(*args, **kwargs)}"


PUBLISHER = bearer(["*"])


async def ask(
    server: Server, method: str, path: str, *headers: str, body: bytes | None = None
) -> Answer:
    """The answer to one request."""
    async with connected(server) as raw:
        await raw.send(request(method, path, *headers, body=body))
        return await raw.answer(to_head=method == "HEAD")


async def publish(server: Server, *fields: tuple[str, str], by: str = PUBLISHER) -> Answer:
    """Publishes a form; `by` is the header that says who."""
    return await ask(server, "POST", HUB, FORM, by, body=urlencode(fields).encode())


async def update(server: Server, topic: str, data: str = "x", *more: tuple[str, str]) -> str:
    """Publishes an update that is taken; gives its id."""
    answer = await publish(server, ("topic", topic), ("data", data), *more)
    assert answer.status == 200, answer.body
    return answer.body.decode()


@asynccontextmanager
async def subscribed(server: Server, query: str, *headers: str) -> AsyncIterator[Stream]:
    """A stream that was opened."""
    async with connected(server) as raw:
        await raw.send(request("GET", f"{HUB}?{query}", *headers))
        status, head = await raw.head()
        assert status == 200, head
        stream = Stream(raw.reader, head)
        await stream.opening()
        yield stream


async def texts(stream: Stream, count: int) -> list[str]:
    """The data of the next events."""
    return [(await stream.next()).data for _ in range(count)]


def in_a_while(seconds: float) -> int:
    """A claim's time."""
    return int(time.time() + seconds)
