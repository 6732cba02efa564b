"""Copies an event stream of another server, such as a language model's answer, to a topic."""

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, NamedTuple, Protocol

from fastsse.client.errors import ClientError
from fastsse.eventstream import EventStreamParser, StreamEventTooLong

__all__ = ["RelayBroken", "RelayTarget", "Relayed", "relay"]

EVENT_BYTES_MAX: Final = 16 * 1024 * 1024
#: The type of the event that says that the upstream broke off.
ERROR: Final = "error"


class RelayTarget(Protocol):
    """Where events go: a `Mount` or an `AsyncClient`."""

    async def publish(self, topics: str, data: Any, /, **fields: Any) -> Any:
        """Publishes one event; returns when it is committed."""

    async def end_topic(self, topics: str, /) -> str:
        """Ends the topic."""


class Relayed(NamedTuple):
    """The result of `relay`.

    Attributes:
        events: the number of copied events.
        last: the data of the last one; empty without events.
    """

    events: int
    last: str


class RelayBroken(ClientError):
    """The upstream answered with an error, or its stream was cut. `count` events were
    copied."""

    def __init__(self, detail: str, count: int) -> None:
        super().__init__(detail)
        self.count = count


async def relay(
    response: Any,
    topic: str,
    to: RelayTarget,
    *,
    private: bool = False,
    end: bool = True,
    max_event_bytes: int = EVENT_BYTES_MAX,
    unwatched_s: float | None = None,
) -> Relayed:
    """Publishes each event of a `text/event-stream` response as it comes, with its type and its id.

    The next event is read when the one before is committed, so a slow hub slows down the upstream
    and no memory grows.

    Arguments:
        response: a streaming response of httpx, an async iterable of bytes, or an asynchronous
            context manager of one, such as `client.stream(…)`: if it can't be opened, the relay
            breaks as if the stream were cut.
        topic: one topic.
        to: a `Mount` or an `AsyncClient`.
        private: only streams with a grant receive the events.
        end: the topic ends behind the last event, and so do the streams that follow it.
        max_event_bytes: a larger event breaks the relay; 16 MiB by default.
        unwatched_s: breaks the relay when no stream has followed the topic for so many seconds,
            as `Mount.unwatched` counts. Needs a `Mount`; with another target a TypeError.

    A response with an error, one that breaks off, or the cancelling of this call becomes a last
    event of the type `error`, in the form that the SDKs of OpenAI and Anthropic raise:
    `{"type":"error","error":{"type":"relay_error","message":…}}`. Then RelayBroken, or
    CancelledError, is raised. Also raises what `to.publish` raises.
    """
    unwatched = getattr(to, "unwatched", None)
    if unwatched_s is not None and unwatched is None:
        raise TypeError("unwatched_s needs a Mount, which knows who follows a topic")
    copying = _Copying(topic, to, {"private": True} if private else {})
    try:
        copy = copying.run(response, max_event_bytes)
        if unwatched_s is None or unwatched is None:
            await copy
        elif not await _before(unwatched(topic, unwatched_s), copy):
            reason = f"The relay was cancelled: no stream followed it for {unwatched_s:g} s."
            raise RelayBroken(reason, copying.count)
    except BaseException as error:
        if not isinstance(error, ClientError) or isinstance(error, RelayBroken):
            await copying.fail(_reason(error))
            if end:
                await to.end_topic(topic)
        if isinstance(error, Exception) and not isinstance(error, ClientError):
            raise RelayBroken(f"The relay of {topic} broke: {error}.", copying.count) from error
        raise
    if end:
        await to.end_topic(topic)
    return Relayed(copying.count, copying.last)


class _Copying:
    def __init__(self, topic: str, to: RelayTarget, fields: dict[str, Any]) -> None:
        self._topic = topic
        self._to = to
        self._fields = fields
        self.count = 0
        self.last = ""

    async def run(self, response: Any, max_event_bytes: int) -> None:
        if isinstance(response, AbstractAsyncContextManager):
            async with response as opened:
                await self.run(opened, max_event_bytes)
            return
        _check(response)
        parser = EventStreamParser(max_event_bytes)
        async for piece in _pieces(response):
            try:
                blocks = parser.feed(piece)
            except StreamEventTooLong:
                detail = f"An event of the upstream has more than {max_event_bytes} bytes."
                raise RelayBroken(detail, self.count) from None
            for block in blocks:
                if block.data is None:
                    continue
                data = block.data.decode(errors="replace")
                own = {
                    "event": block.event.decode(errors="replace") or None,
                    "id": block.id.decode(errors="replace") if block.id else None,
                }
                await self._to.publish(self._topic, data, **own, **self._fields)
                self.count += 1
                self.last = data
        if parser.held_bytes:
            raise RelayBroken("The upstream broke off in the middle of an event.", self.count)

    async def fail(self, reason: str) -> None:
        """Publishes the error event, because no more events follow."""
        error = {"type": "error", "error": {"type": "relay_error", "message": reason}}
        data = json.dumps(error, separators=(",", ":"))
        await self._to.publish(self._topic, data, event=ERROR, **self._fields)


async def _before(limit: Coroutine[Any, Any, None], copy: Coroutine[Any, Any, None]) -> bool:
    """Whether the copy ended before the limit did; what has not ended is cancelled."""
    copying, limiting = asyncio.ensure_future(copy), asyncio.ensure_future(limit)
    try:
        await asyncio.wait((copying, limiting), return_when=asyncio.FIRST_COMPLETED)
        if not copying.done():
            return False
        copying.result()
        return True
    finally:
        copying.cancel()
        limiting.cancel()
        await asyncio.gather(copying, limiting, return_exceptions=True)


def _check(response: Any) -> None:
    """Raises RelayBroken for a response of httpx that is no event stream."""
    status = getattr(response, "status_code", None)
    if status is None:
        return
    kind = response.headers.get("content-type", "").split(";")[0].strip().lower()
    if status != 200:
        raise RelayBroken(f"The upstream answered with {status}.", 0)
    if kind != "text/event-stream":
        raise RelayBroken(f"The upstream answered with {kind!r}, not an event stream.", 0)


def _pieces(response: Any) -> AsyncIterator[bytes]:
    source: AsyncIterable[bytes] = response
    if hasattr(response, "aiter_bytes"):
        source = response.aiter_bytes()
    return aiter(source)


def _reason(error: BaseException) -> str:
    if isinstance(error, RelayBroken):
        return str(error)
    return "the relay was cancelled" if not isinstance(error, Exception) else "the upstream broke"
