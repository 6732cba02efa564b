"""The log of a server, as sources publish to one: batches with keys, repeated until answered."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import click
import orjson

from fastsse.client.errors import ClientError, Refused
from fastsse.client.publisher import Publisher
from fastsse.directives import PRODUCER_SCOPE_BYTES
from fastsse.errors import FastsseError, Unavailable
from fastsse.events import DATA_JSON, Event

__all__ = ["RemoteLog"]

# An event is wrong, and the same event is always refused. Anything else is waited for: a token that
# is missing or expired, a server that is busy or away.
WRONG: Final = frozenset({400, 409, 413, 422})


class RemoteLog:
    """Publishes batches of a source. One batch at a time.

    Arguments:
        publisher: of the server. It repeats nothing itself: the source does.
    """

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._trouble: str | None = None
        self._sending: asyncio.Task[None] | None = None

    def publish(self, events: Sequence[Event], done: Callable[[Any], None]) -> None:
        """Publishes events, all or none, and calls back once."""
        lines = b"\n".join(map(_line, events))
        self._sending = asyncio.create_task(self._send(lines, done))

    async def _send(self, lines: bytes, done: Callable[[Any], None]) -> None:
        try:
            receipt = await self._publisher.publish_ndjson(lines)
        except Refused as error:
            if error.status in WRONG:
                done(FastsseError(str(error)))
                return
            self._waits(error)
        except ClientError as error:
            self._waits(error)
        else:
            self._trouble = None
            done(receipt)
            return
        done(Unavailable("backbone", 1))

    def _waits(self, error: ClientError) -> None:
        """Prints what is wrong, once while it lasts."""
        text = str(error).rstrip(".")
        if text != self._trouble:
            self._trouble = text
            click.echo(f"{text}; lines wait and are sent again", err=True)


def _line(event: Event) -> bytes:
    """An event as a line of NDJSON."""
    asked = event.directives
    members: dict[str, Any] = {
        "topic": event.topics,
        "data": orjson.Fragment(event.data)
        if event.data_kind == DATA_JSON
        else event.data.decode("utf-8", "surrogatepass"),
    }
    for name, value in (("event", event.event), ("id", event.id)):
        if value is not None:
            members[name] = value.decode()
    if event.retry_ms:
        members["retry"] = event.retry_ms
    if event.meta is not None:
        members["meta"] = orjson.Fragment(event.meta)
    if event.private:
        members["private"] = True
    if asked is not None:
        if asked.ends:
            members["end"] = True
        if asked.key is not None:
            members["key"] = asked.key.decode()
        elif asked.producer is not None:
            name = asked.producer.key[PRODUCER_SCOPE_BYTES:].decode()
            members["key"] = f"{name}.{asked.producer.sequence}"
    return orjson.dumps(members)
