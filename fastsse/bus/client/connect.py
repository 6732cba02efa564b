"""Connects a worker to its hub process."""

import asyncio

from fastsse.bus.client.backbone import BusBackbone
from fastsse.bus.client.connection import BusError, HubConnection
from fastsse.bus.client.control import BusControlClient
from fastsse.bus.client.outbox import TIMEOUT_S
from fastsse.bus.handshake import KEY_BYTES

__all__ = ["connect"]


async def connect(
    address: str | bytes, worker: int, key: bytes, timeout_s: float = TIMEOUT_S
) -> tuple[BusBackbone, BusControlClient]:
    """Connects to the hub process, and waits until the log is live here.

    Arguments:
        address: what the hub's Unix socket is bound to; an abstract name begins with NUL.
        worker: this worker's number, from 0; no other living worker has it.
        key: of this process alone, 8 random bytes.
        timeout_s: how long publishers and readers wait while there is no hub.

    Waits for a hub while there is none. Raises BusError if the hub does not accept the worker. The
    backbone's `close` ends both returned objects and closes the connection that they share.
    """
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes")
    connection = HubConnection(address, worker, key)
    backbone = BusBackbone(connection, key, timeout_s)
    control = BusControlClient(connection, worker, timeout_s)
    there = asyncio.ensure_future(backbone.caught_up())
    try:
        await asyncio.wait((there, connection.ended), return_when=asyncio.FIRST_COMPLETED)
        if connection.ended.done():
            raise BusError(
                f"The hub process did not take this worker: {connection.ended.result()}."
            )
    except BaseException:
        there.cancel()
        await backbone.close()
        raise
    return backbone, control
