"""MQTT: messages of topics as events, with quality of service 1.

The session is kept by the broker, so what is published while this node is away comes later. A
message is acknowledged when the log has its event: it is delivered at least once, and what is not
acknowledged bounds what the broker sends. Where that is more than may wait, the source connects
again when the log has the others: the broker then sends the rest once more, in order.
"""

import asyncio
import contextlib
import ssl
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from fastsse.config.source_url import read_server_url
from fastsse.config.sources import SourceRule
from fastsse.sources.extras import import_extra
from fastsse.sources.inbox import Inbox
from fastsse.sources.source import Batch, Message, SourceAway, Words
from fastsse.sources.source_publisher import SourcePublisher

__all__ = ["MqttSource"]

PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
CONNECT_S: Final = 5.0
END_S: Final = 0.5
QOS: Final = 1


class MqttSource:
    """Follows topics of an MQTT broker.

    Arguments:
        rule: the source.
        publisher: whose counters have what was dropped.
    """

    trouble: str | None = None
    backlog: int | None = None

    def __init__(self, rule: SourceRule, publisher: SourcePublisher) -> None:
        self._library: Any = import_extra("aiomqtt", "mqtt", f"The source {rule.name}")
        assert rule.url is not None
        self._rule: Final = rule
        self._server: Final = read_server_url(rule.url)
        self._inbox = Inbox(rule.pending, publisher.counts)
        # Message ids of the waiting messages, to acknowledge.
        self._ids: list[tuple[int, int]] = []
        # Whether messages with an acknowledgement did not fit; all later ones are left to the next
        # connection too, which keeps their order.
        self._overflowed = False
        self._client: Any = None
        self._reading: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """As Source."""
        await self._connect(f"fastsse-{self._rule.group}-{self._rule.name}", keeps=True)
        self._inbox.clear()
        self._ids = []
        self._overflowed = False
        self._reading = asyncio.create_task(self._read_all())
        try:
            await self._client.subscribe([(topic, QOS) for topic in self._rule.topics])
        except self._library.MqttError as error:
            raise SourceAway(_text(error)) from None

    async def read(self) -> Batch:
        """As Source."""
        reading = self._reading
        assert reading is not None
        if not len(self._inbox):
            if reading.done():
                raise SourceAway(_text(reading.exception() or OSError("the connection was lost")))
            if self._overflowed:
                raise SourceAway("more messages came than may wait: the broker sends them again")
        return await self._inbox.read()

    async def acknowledge(self, batch: Batch) -> None:
        """As Source."""
        count = len(batch.messages)
        self._inbox.acknowledge(batch)
        for message_id, qos in self._ids[:count]:
            if qos:
                self._client._client.ack(message_id, qos)
        del self._ids[:count]

    async def idle(self) -> None:
        """As Source. The broker sends only a bounded number of unacknowledged messages."""

    async def preview(self, count: int, wait_s: float) -> Sequence[Message]:
        """As Source: what is published within the time, in a session of its own."""
        self._inbox = Inbox(count, Counter())
        await self._connect(None, keeps=False)
        reading = asyncio.create_task(self._read_all())
        try:
            await self._client.subscribe([(topic, QOS) for topic in self._rule.topics])
            until_s = time.monotonic() + wait_s
            while len(self._inbox) < count and time.monotonic() < until_s:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            return self._inbox.all()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await self.close(is_end=True)

    async def close(self, *, is_end: bool) -> None:
        """As Source."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(self._library.MqttError, TimeoutError, OSError):
                async with asyncio.timeout(END_S):
                    await client.__aexit__(None, None, None)

    async def _connect(self, identifier: str | None, *, keeps: bool) -> None:
        server = self._server
        host, _, port = server.hosts[0].rpartition(":")
        if not host:
            host, port = server.hosts[0], str(PORTS[server.scheme])
        client = self._library.Client(
            host,
            int(port),
            username=server.user,
            password=server.password,
            identifier=identifier,
            clean_session=not keeps,
            timeout=CONNECT_S,
            tls_context=ssl.create_default_context() if server.scheme == "mqtts" else None,
        )
        # Before it connects: the broker sends what it has kept at once, and the library would
        # acknowledge what comes until then.
        client._client.manual_ack_set(keeps)
        try:
            await client.__aenter__()
        except (self._library.MqttError, OSError) as error:
            raise SourceAway(f"{host}:{port}: {_text(error)}") from None
        self._client = client

    async def _read_all(self) -> None:
        async for message in self._client.messages:
            topic, is_kept = str(message.topic), message.qos > 0
            if is_kept and self._overflowed:
                continue
            payload = _bytes(message.payload)
            if self._inbox.add(topic, payload, _words_of(topic), is_kept=is_kept):
                self._ids.append((message.mid, message.qos))
            elif is_kept:
                self._overflowed = True


def _words_of(topic: str) -> Any:
    parts = {str(at): part for at, part in enumerate(topic.split("/")[:9], 1)}
    words: Words = {"topic": topic, **parts}
    return lambda: words


def _bytes(payload: Any) -> bytes:
    if payload is None:
        return b""
    return bytes(payload) if isinstance(payload, bytes | bytearray) else str(payload).encode()


def _text(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__
