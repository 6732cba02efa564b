"""`fastsse publish --sse`: publishes an event stream from standard input as it comes."""

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, BinaryIO

import click

from fastsse.client.errors import Refused
from fastsse.client.publisher import Publisher

__all__ = ["relay_input"]

_READ_BYTES = 64 * 1024


def relay_input(
    topic: str, fields: Mapping[str, Any], opened: Callable[[], Awaitable[Publisher]]
) -> int:
    """Publishes the events of standard input until it ends, and says how many they were.

    Arguments:
        topic: the topic.
        fields: further arguments of `Publisher.relay`.
        opened: makes the publisher.

    Raises ClientError. Returns the exit status.
    """
    return asyncio.run(_relay(topic, fields, opened))


async def _relay(
    topic: str, fields: Mapping[str, Any], opened: Callable[[], Awaitable[Publisher]]
) -> int:
    async with await opened() as publisher:
        try:
            receipt = await publisher.relay(topic, _pieces(sys.stdin.buffer), **fields)
        except Refused as refused:
            click.echo(f"{refused.count} published.", err=True)
            raise
    click.echo(f"{receipt.count} published.", err=True)
    return 0


async def _pieces(source: BinaryIO) -> AsyncIterator[bytes]:
    """What is read, as it comes. Waiting can be interrupted, which a thread's read could not."""
    fd = source.fileno()
    if stat.S_ISREG(os.fstat(fd).st_mode):
        while piece := os.read(fd, _READ_BYTES):
            yield piece
        return
    reader = asyncio.StreamReader()
    was_blocking = os.get_blocking(fd)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), source
    )
    try:
        while piece := await reader.read(_READ_BYTES):
            yield piece
    finally:
        os.set_blocking(fd, was_blocking)
        transport.close()
