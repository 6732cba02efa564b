"""NATS: messages of subjects (core NATS), or of a JetStream stream, as events.

Core NATS stores no messages. Those published while this node is away are lost. If they arrive
faster than the log accepts them, those above `pending` are dropped and counted. JetStream stores
messages, and a durable consumer shares them between nodes. Each is acknowledged when the log has
its event, so it is delivered at least once.
"""

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Final, TypeVar

from fastsse.config.source_url import Server, read_server_url
from fastsse.config.sources import SourceRule
from fastsse.sources.extras import import_extra
from fastsse.sources.inbox import Inbox
from fastsse.sources.read_count import ReadCount
from fastsse.sources.source import Batch, Message, PlainMessage, SourceAway, Words
from fastsse.sources.source_publisher import BATCH_EVENTS, SourcePublisher

__all__ = ["JetStreamSource", "NatsConnection", "NatsSource", "answer_of", "text_of"]

CONNECT_S: Final = 2.0
WAIT_S: Final = 0.5
END_S: Final = 0.5
# The server gives a message to another node if it is not acknowledged within this time.
ACK_WAIT_S: Final = 30.0

T = TypeVar("T")


async def answer_of(call: Coroutine[Any, Any, T]) -> T:
    """Waits for a call of the library, and can always be cancelled. In places the library treats a
    cancellation as a time-out, so that the task that awaits it would continue."""
    calling = asyncio.ensure_future(call)
    try:
        return await asyncio.shield(calling)
    except asyncio.CancelledError:
        # The result of the abandoned call is not used.
        calling.add_done_callback(lambda done: done.cancelled() or done.exception())
        calling.cancel()
        raise


class NatsConnection:
    """A connection that its owner opens again after a failure. Raises MissingExtra when it is made
    without the library.

    Arguments:
        server: where it goes.
        owner: who needs it, for the text of errors.
    """

    def __init__(self, server: Server, owner: str) -> None:
        import_extra("nats", "nats", owner)
        self._server: Final = server
        self.client: Any = None
        self._fault: str | None = None

    async def open(self) -> None:
        """Connects. Raises SourceAway."""
        import nats
        from nats.aio.client import Client

        self._fault = None
        scheme = "tls" if self._server.scheme == "natss" else "nats"
        login: dict[str, Any] = {"user": self._server.user, "password": self._server.password}
        client = Client()
        try:
            # The library would try again without an end.
            async with asyncio.timeout(CONNECT_S):
                await client.connect(
                    [f"{scheme}://{host}" for host in self._server.hosts],
                    name="fastsse",
                    allow_reconnect=False,
                    connect_timeout=round(CONNECT_S),
                    error_cb=self._on_error,
                    disconnected_cb=self._on_lost,
                    **{name: value for name, value in login.items() if value is not None},
                )
            self.client = client
        except (nats.errors.Error, OSError, TimeoutError) as error:
            hosts = ", ".join(self._server.hosts)
            raise SourceAway(f"{hosts}: {self._fault or text_of(error)}") from None

    def check(self) -> None:
        """Raises SourceAway for a connection that was lost."""
        if self.client is None or not self.client.is_connected:
            raise SourceAway(self._fault or "the connection was lost")

    async def close(self) -> None:
        """Disconnects. Raises nothing."""
        client, self.client = self.client, None
        if client is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(END_S):
                    await client.close()

    async def _on_error(self, error: Exception) -> None:
        self._fault = text_of(error)

    async def _on_lost(self) -> None:
        self._fault = self._fault or "the connection was lost"


def _connection(rule: SourceRule) -> NatsConnection:
    assert rule.url is not None
    return NatsConnection(read_server_url(rule.url), f"The source {rule.name}")


class NatsSource:
    """Follows subjects of core NATS.

    Arguments:
        rule: the source.
        publisher: counts dropped messages.
    """

    trouble: str | None = None
    backlog: int | None = None

    def __init__(self, rule: SourceRule, publisher: SourcePublisher) -> None:
        self._connection: Final = _connection(rule)
        self._rule: Final = rule
        self._inbox: Final = Inbox(rule.pending, publisher.counts)

    async def open(self) -> None:
        """As Source. Nodes of one group share the messages."""
        await self._connection.open()
        rule = self._rule
        for subject in rule.topics:
            await self._connection.client.subscribe(subject, queue=rule.group, cb=self._on_message)
        await answer_of(self._connection.client.flush())

    async def read(self) -> Batch:
        """As Source."""
        if not len(self._inbox):
            self._connection.check()
        return await self._inbox.read()

    async def acknowledge(self, batch: Batch) -> None:
        """As Source."""
        self._inbox.acknowledge(batch)

    async def idle(self) -> None:
        """As Source. Messages that arrive meanwhile wait, up to `pending`."""

    async def preview(self, count: int, wait_s: float) -> Sequence[Message]:
        """As Source: the messages that are published within the time."""
        await self._connection.open()
        try:
            for subject in self._rule.topics:
                await self._connection.client.subscribe(subject, cb=self._on_message)
            await answer_of(self._connection.client.flush())
            until_s = time.monotonic() + wait_s
            while len(self._inbox) < count and time.monotonic() < until_s:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            return self._inbox.all()[:count]
        finally:
            await self._connection.close()

    async def close(self, *, is_end: bool) -> None:
        """As Source."""
        await self._connection.close()

    async def _on_message(self, message: Any) -> None:
        self._inbox.add(message.subject, message.data, lambda: _words(message))


class JetStreamSource:
    """Reads a JetStream stream by a durable pull consumer.

    Arguments:
        rule: the source.
    """

    trouble: str | None = None

    def __init__(self, rule: SourceRule) -> None:
        self._connection: Final = _connection(rule)
        self._rule: Final = rule
        self._count: Final = ReadCount(min(rule.pending, BATCH_EVENTS))
        self._consumer: Any = None
        self.backlog: int | None = None

    async def open(self) -> None:
        """As Source. Makes the consumer if there is none."""
        import nats

        await self._connection.open()
        rule, stream = self._rule, self._connection.client.jetstream()
        try:
            self._consumer = await stream.pull_subscribe(
                "" if len(rule.topics) != 1 else rule.topics[0],
                durable=rule.group,
                stream=rule.stream,
                config=_consumer_of(rule),
            )
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise SourceAway(text_of(error)) from None

    async def read(self) -> Batch:
        """As Source."""
        import nats

        self._connection.check()
        try:
            found = await answer_of(self._consumer.fetch(self._count.value, timeout=WAIT_S))
        except TimeoutError:
            return Batch()
        except (nats.errors.Error, OSError) as error:
            raise SourceAway(text_of(error)) from None
        if not found:
            return Batch()  # The server ended in between.
        self.backlog = found[-1].metadata.num_pending
        made_ms = found[0].metadata.timestamp.timestamp() * 1000
        age_ms = max(0, int(time.time() * 1000 - made_ms))
        messages = [_stream_message(one) for one in found]
        self._count.note(len(found), sum(len(one.data) for one in found))
        return Batch(messages, found, age_ms, self.backlog == 0)

    async def acknowledge(self, batch: Batch) -> None:
        """As Source."""
        import nats

        found: Any = batch.places
        try:
            for message in found:
                await message.ack()
            await answer_of(self._connection.client.flush())
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise SourceAway(text_of(error)) from None

    async def idle(self) -> None:
        """As Source. The server delivers unacknowledged messages again after a while."""

    async def preview(self, count: int, wait_s: float) -> Sequence[Message]:
        """As Source: the messages behind the last one that was delivered to the group."""
        import nats

        await self._connection.open()
        try:
            stream = self._connection.client.jetstream()
            rule = self._rule
            config = await self._preview_consumer(stream)
            ordered = await stream.subscribe(
                rule.topics[0] if len(rule.topics) == 1 else ">",
                stream=rule.stream, config=config, ordered_consumer=True,
            )  # fmt: skip
            found: list[Message] = []
            until_s = time.monotonic() + wait_s
            while len(found) < count and (left_s := until_s - time.monotonic()) > 0:
                with contextlib.suppress(TimeoutError):
                    found.append(_stream_message(await ordered.next_msg(timeout=left_s)))
            return found
        except (nats.errors.Error, OSError) as error:
            raise SourceAway(text_of(error)) from None
        finally:
            await self._connection.close()

    async def _preview_consumer(self, stream: Any) -> Any:
        import nats
        from nats.js.api import ConsumerConfig, DeliverPolicy

        rule = self._rule
        try:
            info = await stream.consumer_info(rule.stream, rule.group)
        except nats.js.errors.NotFoundError:
            return ConsumerConfig(deliver_policy=_first_of(rule))
        first = info.delivered.stream_seq + 1
        return ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=max(1, first)
        )

    async def close(self, *, is_end: bool) -> None:
        """As Source. Unacknowledged messages are available to other nodes at once."""
        self._consumer = None
        await self._connection.close()


def _consumer_of(rule: SourceRule) -> Any:
    from nats.js.api import AckPolicy, ConsumerConfig

    return ConsumerConfig(
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_S,
        max_ack_pending=2 * BATCH_EVENTS,
        deliver_policy=_first_of(rule),
        filter_subjects=list(rule.topics) if len(rule.topics) > 1 else None,
    )


def _first_of(rule: SourceRule) -> Any:
    from nats.js.api import DeliverPolicy

    return DeliverPolicy.NEW if rule.start == "latest" else DeliverPolicy.ALL


def _stream_message(message: Any) -> PlainMessage:
    place = message.metadata
    origin = f"{place.stream}/{place.sequence.stream}"
    return PlainMessage(origin, message.data, lambda: _words(message))


def _words(message: Any) -> Words:
    parts = {str(at): part for at, part in enumerate(message.subject.split(".")[:9], 1)}
    headers = {f"header.{name}": value for name, value in (message.headers or {}).items()}
    return {"topic": message.subject, **parts, **headers}


def text_of(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__
