"""MCP: an `EventStore` for Streamable HTTP on top of the hub, with the `mcp` SDK.

    hub = fastsse.mount(...)  # or a fastsse.client.AsyncClient
    manager = SessionManager(server, HubEventStore(hub))

A client whose connection is cut resumes where it was, at any process that has the same hub.
"""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncGenerator
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

from mcp.server.streamable_http import EventCallback, EventId, EventMessage, EventStore, StreamId
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.types import JSONRPCMessage, jsonrpc_message_adapter

from fastsse.client.asyncclient import AsyncClient
from fastsse.client.view import StreamView

__all__ = ["HubEventStore", "SessionManager"]

PREFIX: Final = "mcp"
#: The types of the events in the hub.
MESSAGE: Final = "message"
PRIMING: Final = "priming"
MARK: Final = "mark"
_HEAD: Final = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class _Place(NamedTuple):
    """What an event id of this store names."""

    scope: str
    stream: str
    position: str

    @classmethod
    def parse(cls, event_id: str) -> "_Place | None":
        stream, _, rest = event_id.partition("~")
        scope, _, position = rest.partition("~")
        is_ours = scope.isalnum() and len(scope) == 32 and position
        return cls(scope, unquote(stream), position) if is_ours else None

    def __str__(self) -> str:
        return f"{quote(self.stream, safe='')}~{self.scope}~{self.position}"


class HubEventStore(EventStore):
    """Keeps the messages of MCP streams in the hub, a topic for each stream.

    The SDK names streams by the numbers of requests, which several sessions share. So each session
    needs a store of its own: `scoped` makes one, and SessionManager does it.

    Arguments:
        hub: a `Mount`, or an `AsyncClient` whose token may publish to and read `mcp/*`.
        prefix: of the topics.

    How long and how much is kept are the hub's options for these topics.
    """

    def __init__(self, hub: Any, *, prefix: str = PREFIX) -> None:
        self._hub = hub
        self._prefix = prefix
        self._scope = uuid.uuid4().hex

    def scoped(self) -> "HubEventStore":
        """A store for one more session on the same hub."""
        return HubEventStore(self._hub, prefix=self._prefix)

    async def store_event(self, stream_id: StreamId, message: JSONRPCMessage | None) -> EventId:
        """Publishes a message of a stream; None is an event with only an id."""
        data = "null"  # An event without a message, only with an id.
        if message is not None:
            data = message.model_dump_json(by_alias=True, exclude_unset=True)
        kind = PRIMING if message is None else MESSAGE
        place = _Place(self._scope, stream_id, "")
        position = await self._publish(place, data, kind)
        return str(place._replace(position=position))

    async def replay_events_after(
        self, last_event_id: EventId, send_callback: EventCallback
    ) -> StreamId | None:
        """Sends the messages of the stream after an event, to the newest now. None for an id that
        is not of this store."""
        place = _Place.parse(last_event_id)
        if place is None or place.scope != self._scope:
            return None
        mark = uuid.uuid4().hex
        await self._publish(place, mark, MARK)
        async with contextlib.aclosing(self.follow(place, until_data=mark)) as messages:
            async for event_id, text in messages:
                message = jsonrpc_message_adapter.validate_json(text)
                await send_callback(EventMessage(message, event_id))
        return place.stream

    async def follow(
        self, place: _Place, *, until_data: str | None = None
    ) -> AsyncGenerator[tuple[str, str], None]:
        """The ids and texts of the messages of a stream after a place, from any process."""
        topic = self._topic(place)
        async with contextlib.aclosing(self._read(topic, place.position, until_data)) as events:
            async for event in events:
                if event.event == MESSAGE:
                    yield str(place._replace(position=event.id)), event.data

    async def _publish(self, place: _Place, data: str, kind: str) -> str:
        answer = await self._hub.publish(self._topic(place), data, event=kind, private=True)
        position: str = getattr(answer, "id", answer)
        return position

    def _read(self, topic: str, last_event_id: str, until_data: str | None) -> Any:
        if isinstance(self._hub, AsyncClient):
            view = StreamView(until_data=until_data)
            return _closing(self._hub.subscribe(topic, last_event_id=last_event_id, view=view))
        return self._hub.subscribe(topic, last_event_id=last_event_id, until_data=until_data)

    def _topic(self, place: _Place) -> str:
        return f"{self._prefix}/{place.scope}/{quote(place.stream, safe='')}"


async def _closing(listener: Any) -> AsyncGenerator[Any, None]:
    """A listener as a generator, which closes it."""
    try:
        async for event in listener:
            yield event
    finally:
        await listener.aclose()


class SessionManager(StreamableHTTPSessionManager):
    """The SDK's manager, whose sessions have a store each, and whose streams are resumed from the
    hub: also at a process that does not have the session, and without losing a message between
    what is replayed and what is live.

    Arguments: as of the SDK's manager; `app` may also be an `MCPServer`, `event_store` is a
    HubEventStore. `handle_request` serves it, within `run()`.
    """

    def __init__(self, app: Any, event_store: HubEventStore, **options: Any) -> None:
        self._store = event_store
        # An MCPServer makes a manager of its own from this.
        super().__init__(getattr(app, "_lowlevel_server", app), event_store, **options)

    @property
    def event_store(self) -> HubEventStore:
        """A store for one more session."""
        return self._store.scoped()

    @event_store.setter
    def event_store(self, store: HubEventStore) -> None:
        self._store = store

    async def handle_request(self, scope: Any, receive: Any, send: Any) -> None:
        """As of the SDK's manager; answers a GET with an id of the hub itself."""
        headers = dict(scope["headers"])
        place = _Place.parse(headers.get(b"last-event-id", b"").decode("latin-1"))
        session = headers.get(b"mcp-session-id", b"").decode("latin-1")
        is_resumed = scope["method"] == "GET" and place is not None and session
        # The SDK compares who resumes the session of a credential.
        if not is_resumed or place is None or session in self._session_owners:
            await super().handle_request(scope, receive, send)
            return
        gone = asyncio.ensure_future(_client_gone(receive))
        copying = asyncio.ensure_future(self._resume(place, session, send))
        try:
            await asyncio.wait((gone, copying), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (gone, copying):
                task.cancel()
            await asyncio.gather(gone, copying, return_exceptions=True)
        if not copying.cancelled():
            copying.result()

    async def _resume(self, place: _Place, session: str, send: Any) -> None:
        head = [*_HEAD, (b"mcp-session-id", session.encode("latin-1"))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        retry = b"" if self.retry_interval is None else b"retry: %d\n" % self.retry_interval
        await send({"type": "http.response.body", "body": retry + b":\n\n", "more_body": True})
        async with contextlib.aclosing(self._store.follow(place)) as messages:
            async for event_id, text in messages:
                body = f"event: message\nid: {event_id}\ndata: {text}\n\n".encode()
                await send({"type": "http.response.body", "body": body, "more_body": True})
                if _is_answer(text):
                    break
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _client_gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _is_answer(text: str) -> bool:
    """Whether a message is the response to its request, behind which the stream is over."""
    message = json.loads(text)
    return "id" in message and ("result" in message or "error" in message)
