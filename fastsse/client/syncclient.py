"""The client for programs without asyncio: Django, Flask, Celery, scripts.

A thread runs the event loop of an `AsyncClient`, so repeats, resuming and the outbox are the same
code. It starts with the first call, in each process: a client made before a server forks its
workers works in all of them.
"""

import asyncio
import os
import threading
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from fastsse.client.asyncclient import AsyncClient
from fastsse.client.decoder import ReceivedEvent
from fastsse.client.listener import Listener
from fastsse.client.publisher import Publisher
from fastsse.client.receipts import Receipt

__all__ = ["Client", "Subscription"]

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["Client", P], T]:
    """A method of AsyncClient that waits for its result."""
    name = method.__name__

    def call(client: "Client", /, *args: P.args, **fields: P.kwargs) -> T:
        result: T = client._call(lambda inner: getattr(inner, name)(*args, **fields))
        return result

    call.__name__, call.__doc__ = name, method.__doc__
    return call


class Client:
    """Publishes and subscribes from synchronous code. Any thread, and after a fork too.

        client = Client("http://127.0.0.1:8080", token=TOKEN)
        client.publish("news", {"n": 1}, event="tick")
        for event in client.subscribe("news"):
            print(event.data)

    Arguments: as of AsyncClient, without `client`. Raises ValueError for an invalid URL.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._made = lambda: AsyncClient(url, **options)
        AsyncClient(url, **{**options, "outbox": None})  # Reports a mistake here.
        self._lock = threading.Lock()
        self._thread: _LoopThread | None = None

    publish = _blocking(Publisher.publish)
    publish_batch = _blocking(Publisher.publish_batch)
    publish_ndjson = _blocking(Publisher.publish_ndjson)
    end_topic = _blocking(Publisher.end_topic)
    delete_event = _blocking(Publisher.delete_event)
    purge_topic = _blocking(Publisher.purge_topic)
    cancel = _blocking(Publisher.cancel)
    list_scheduled = _blocking(Publisher.list_scheduled)
    fetch_page = _blocking(AsyncClient.fetch_page)
    ticket = _blocking(AsyncClient.ticket)
    flush = _blocking(AsyncClient.flush)

    def publish_many(
        self,
        events: Iterable[Mapping[str, Any]],
        *,
        on_accepted: Callable[[Receipt], None] | None = None,
    ) -> Receipt:
        """As `AsyncClient.publish_many`, for an iterable. It is read, and `on_accepted` is called,
        on the thread of the client."""
        return self._call(lambda inner: inner.publish_many(events, on_accepted=on_accepted))

    def publish_stream(
        self, events: Iterable[Mapping[str, Any]], *, end_on_close: bool = False
    ) -> Receipt:
        """As `AsyncClient.publish_stream`, for an iterable, which may wait: it is read on a thread
        of its own."""
        return self._call(
            lambda inner: inner.publish_stream(_as_they_come(events), end_on_close=end_on_close)
        )

    def relay(
        self, topics: str | Sequence[str], stream: Iterable[bytes], **options: Any
    ) -> Receipt:
        """As `AsyncClient.relay`, for an iterable, which may wait: it is read on a thread of its
        own."""
        return self._call(lambda inner: inner.relay(topics, _as_they_come(stream), **options))

    def subscribe(self, topics: str | Iterable[str] = (), **options: Any) -> "Subscription":
        """The events of topics: an iterator of ReceivedEvent, and a context manager that waits
        until the stream is open. Arguments and errors as of `AsyncClient.subscribe`."""
        loop_thread = self._running()
        listener = loop_thread.client.subscribe(topics, **options)
        return Subscription(loop_thread, listener)

    def close(self) -> None:
        """Closes the connections and ends the thread. Idempotent; a later call starts again."""
        with self._lock:
            loop_thread, self._thread = self._thread, None
        if loop_thread is not None:
            loop_thread.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _call(self, call: Callable[[AsyncClient], Coroutine[Any, Any, T]]) -> T:
        loop_thread = self._running()
        return loop_thread.run(lambda: call(loop_thread.client))

    def _running(self) -> "_LoopThread":
        with self._lock:
            if self._thread is None or self._thread.pid != os.getpid():
                self._thread = _LoopThread(self._made)
            return self._thread


class Subscription:
    """Iterates over the events of a stream. One thread at a time.

    `last_event_id` is the id of the last returned event. Iteration raises as that of a Listener.
    """

    def __init__(self, loop_thread: "_LoopThread", listener: Listener) -> None:
        self._loop_thread = loop_thread
        self._listener = listener
        self._ready: deque[ReceivedEvent] = deque()
        self.last_event_id = listener.last_event_id

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ReceivedEvent:
        """The next event. Raises as `Listener.__anext__`."""
        if not self._ready:
            self._ready.extend(self._loop_thread.run(self._listener.next_events))
            if not self._ready:
                raise StopIteration
        event = self._ready.popleft()
        self.last_event_id = event.id
        return event

    def __enter__(self) -> Self:
        self._loop_thread.run(self._listener.__aenter__)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection. Idempotent."""
        self._loop_thread.run(self._listener.aclose)


class _LoopThread:
    """A thread with an event loop and a client in it."""

    def __init__(self, made: Callable[[], AsyncClient]) -> None:
        self.pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fastsse-client", daemon=True)
        self._thread.start()
        self.client = self.run(lambda: _called(made))

    def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """The result of an awaitable that is made in the loop. An exception of this thread, such as
        KeyboardInterrupt, cancels it."""
        future = asyncio.run_coroutine_threadsafe(_awaited(call), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Closes the client and ends the thread."""
        self.run(self.client.aclose)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()


async def _awaited(call: Callable[[], Awaitable[T]]) -> T:
    return await call()


async def _as_they_come(items: Iterable[T]) -> AsyncIterator[T]:
    """The items, each read when it is needed, on another thread."""
    iterator = iter(items)
    end = object()
    while (item := await asyncio.to_thread(next, iterator, end)) is not end:
        yield item  # type: ignore[misc]


async def _called(made: Callable[[], T]) -> T:
    return made()
