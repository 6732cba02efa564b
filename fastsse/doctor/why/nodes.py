"""Whether every node behind an address has what is published there."""

import asyncio
import secrets
from contextlib import AsyncExitStack
from typing import Final

from fastsse.checks import OK, WRONG, Check
from fastsse.client.errors import ClientError
from fastsse.client.http import events_url, new_client
from fastsse.client.publisher import Publisher
from fastsse.doctor.path.stream import PLAIN, Stream
from fastsse.doctor.why.question import Question
from fastsse.limits import TRIAL_TOPICS

__all__ = ["of_nodes"]

# A balancer that gives connections to nodes in turn reaches two nodes with two, four with four.
_CONNECTIONS: Final = 4
# Longer than the way from node to node, shorter than the patience for a path that holds bytes back.
_WAIT_S: Final = 2.0
_SHARE: Final = "the same --store redis://… and redis_stream at every node."


async def of_nodes(question: Question) -> Check | None:
    """Publishes over several connections and listens on several; None if that says nothing, because
    too few streams opened, nothing could be published, or nothing arrived anywhere."""
    topic = f"{TRIAL_TOPICS}{secrets.token_hex(6)}"
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(new_client(None))
        streams = [
            await stack.enter_async_context(_stream(client, question, topic))
            for _ in range(_CONNECTIONS)
        ]
        opened = await asyncio.gather(*(_opens(stream) for stream in streams))
        streams = [stream for stream, is_open in zip(streams, opened, strict=True) if is_open]
        if len(streams) < 2:
            return None
        try:
            for number in range(_CONNECTIONS):
                await _publish(
                    question.publish_url or _plain(question.url), question, topic, number
                )
            seen = await _seen(streams, _CONNECTIONS)
            if seen == {_CONNECTIONS}:
                return Check("nodes", OK, "Each event reaches each stream, over all connections.")
            if seen == {0}:
                return await _elsewhere(question, topic, streams)
        except ClientError:
            return None
    return Check(
        "nodes",
        WRONG,
        "Some streams receive an event that others do not: the nodes behind this address do not "
        "share a store.",
        _SHARE,
    )


async def _elsewhere(question: Question, topic: str, streams: list[Stream]) -> Check | None:
    """What is published where the client listens arrives: the publisher's node is another one."""
    if question.publish_url is None:
        return None
    await _publish(_plain(question.url), question, topic, _CONNECTIONS)
    if await _seen(streams, 1) == {0}:
        return None
    return Check(
        "nodes",
        WRONG,
        f"What is published at {question.publish_url} does not arrive, and what is published at "
        "the client's own address does: the nodes do not share a store.",
        _SHARE,
    )


def _stream(client: object, question: Question, topic: str) -> Stream:
    return Stream(
        client,  # type: ignore[arg-type]
        events_url(_plain(question.url)),
        [("topic", topic)],
        token=question.token,
        encodings=PLAIN,
    )


async def _opens(stream: Stream) -> bool:
    await stream.until(lambda: bool(stream.arrivals), _WAIT_S)
    return stream.status == 200 and stream.end is None


async def _publish(url: str, question: Question, topic: str, number: int) -> None:
    """Over a connection of its own. Raises ClientError."""
    async with (
        new_client(None) as client,
        Publisher(url, token=question.token, client=client, patience_s=0) as publisher,
    ):
        await publisher.publish(topic, str(number))


async def _seen(streams: list[Stream], count: int) -> set[int]:
    """How many events the streams have, when each has so many or the time is over."""
    waits = [
        stream.until(lambda stream=stream: _count(stream) >= count, _WAIT_S)  # type: ignore[misc]
        for stream in streams
    ]
    await asyncio.gather(*waits)
    return {_count(stream) for stream in streams}


def _count(stream: Stream) -> int:
    return sum(not event.is_control for _, event in stream.events)


def _plain(url: str) -> str:
    return url.partition("?")[0]
