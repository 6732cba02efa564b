"""Copies an event stream of another server, such as a language model's answer, to a topic."""

import json
from collections.abc import AsyncIterable, AsyncIterator
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
    """The result: the number of copied events, and the data of the last one."""

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
) -> Relayed:
    """Publishes each event of a `text/event-stream` response as it comes, with its type and its id.

    The next event is read when the one before is committed, so a slow hub slows down the upstream
    and no memory grows.

    Arguments:
        response: a streaming response of httpx, or an async iterable of bytes.
        topic: one topic.
        to: a `Mount` or an `AsyncClient`.
        private: only streams with a grant receive the events.
        end: the topic ends behind the last event, and so do the streams that follow it.
        max_event_bytes: a larger event breaks the relay.

    A response with an error, one that breaks off, or the cancelling of this call becomes a last
    event of the type `error`, in the form that the SDKs of OpenAI and Anthropic raise:
    `{"type":"error","error":{"type":"relay_error","message":…}}`. Then RelayBroken, or
    CancelledError, is raised. Also raises what `to.publish` raises.
    """
    copying = _Copying(topic, to, {"private": True} if private else {})
    try:
        _check(response)
        await copying.run(_pieces(response), max_event_bytes)
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

    async def run(self, pieces: AsyncIterator[bytes], max_event_bytes: int) -> None:
        parser = EventStreamParser(max_event_bytes)
        async for piece in pieces:
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
