"""Who is there, as clients of several nodes see it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tests.auth.minting import SECRET, grants, mint
from tests.redis.cluster import Subscriber
from tests.redis.onelog import TIMEOUT_S

SUBSCRIPTIONS = "/.well-known/mercure/subscriptions"
EACH = SUBSCRIPTIONS + "{/topic}{/subscriber}"
OPTIONS: dict[str, Any] = {"jwt_key": SECRET, "subscriptions": True}
# Short, and longer than a busy machine keeps a process waiting.
DEAD_AFTER = {"redis_node_timeout": "4s"}


def token(subject: str = "watcher") -> str:
    """A token that may do everything."""
    return mint({"sub": subject, **grants(subscribe=["*"], publish=["*"])}).decode()


async def ask(
    method: str, url: str, subject: str = "watcher", media_type: str = "", **more: Any
) -> httpx.Response:
    """One request."""
    headers = {"Authorization": f"Bearer {token(subject)}"}
    headers |= {"Content-Type": media_type} if media_type else {}
    async with httpx.AsyncClient(trust_env=False, timeout=TIMEOUT_S) as client:
        return await client.request(method, url, headers=headers, **more)


async def is_taken(stream: AsyncIterator[bytes]) -> bool:
    """Whether a subscriber was taken; a refused one only receives the time to come back."""
    seen = b""
    async for data in stream:
        seen += data
        if b"\nid:" in seen or seen.startswith(b"id:"):
            return True
    assert b"retry:" in seen
    return False


@asynccontextmanager
async def stream(
    url: str, subject: str, topic: str = "t", more: str = ""
) -> AsyncIterator[AsyncIterator[bytes] | None]:
    """A stream that is open, None when it was turned away."""
    headers = {"Authorization": f"Bearer {token(subject)}"}
    async with (
        httpx.AsyncClient(trust_env=False, timeout=TIMEOUT_S) as client,
        client.stream("GET", f"{url}/events?topic={topic}{more}", headers=headers) as answer,
    ):
        assert answer.status_code == 200
        # Deleting it ends the stream.
        data = answer.aiter_raw()
        yield data if await is_taken(data) else None


async def id_of(data: AsyncIterator[bytes]) -> str:
    """A stream's id, as its pings tell it."""
    seen = b""
    async for some in data:
        seen += some
        if seen.endswith(b"\n") and b"event: fastsse.ping\ndata: " in seen:
            data = seen.split(b"event: fastsse.ping\ndata: ")[1].split(b"\n")[0]
            return str(json.loads(data)["stream"])
    raise AssertionError("the stream has ended")


async def is_full(url: str, subject: str) -> bool:
    """Whether a client may have no more streams."""
    async with stream(url, subject, "probe") as opened:
        return opened is None


async def has_room(url: str, subject: str) -> bool:
    """Whether a client may have another stream."""
    return not await is_full(url, subject)


async def says(status: int, url: str, path: str, stream_id: str, subject: str = "watcher") -> bool:
    """Whether this is the answer to a pong or a renewal."""
    answer = await ask("POST", f"{url}/{path}", subject, params={"stream": stream_id})
    return answer.status_code == status


async def until(question: Callable[..., Awaitable[bool]], *arguments: Any) -> None:
    """Asks until it is so."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while not await question(*arguments):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    except TimeoutError:
        name = getattr(question, "__name__", question)
        raise AssertionError(f"it never was so: {name} {arguments}") from None


async def count(url: str, topic: str = "t") -> int:
    """How many a node says ask for a topic; -1 while it can't say."""
    answer = await ask("GET", url + "/presence", params={"topic": topic})
    if answer.status_code == 503:
        assert int(answer.headers["Retry-After"]) > 0
        return -1
    return int(answer.json()["count"])


async def counts(number: int, *urls: str, topic: str = "t") -> None:
    """Waits until every node says that so many ask for a topic."""

    for url in urls:
        await until(_counts, number, url, topic)


async def _counts(number: int, url: str, topic: str) -> bool:
    return await count(url, topic) == number


class Watcher:
    """Sees who comes and goes, at one node."""

    def __init__(self, url: str, **cursor: Any) -> None:
        self._subscriber = Subscriber(url, EACH, token=token(), **cursor)

    @classmethod
    @asynccontextmanager
    async def at(cls, url: str) -> AsyncIterator["Watcher"]:
        watcher = cls(url)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await watcher._subscriber.opened.wait()
            yield watcher
        finally:
            await watcher._subscriber.close()

    def seen(self, topic: str = "t") -> dict[str, list[bool]]:
        """What was published of a topic's subscribers: True when one came, False when it went."""
        told: dict[str, list[bool]] = {}
        for text in self._subscriber.seen:
            document = json.loads(text)
            if document["topic"] == topic:
                told.setdefault(document["subscriber"], []).append(document["active"])
        return told

    async def sees(self, *told: list[bool], topic: str = "t") -> None:
        """Waits until this was published of subscribers, one each."""

        async def is_notified(_: object) -> bool:
            return sorted(self.seen(topic).values()) == sorted(told)

        await until(is_notified, told)
