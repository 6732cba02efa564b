"""Streams whose socket can't be taken: a task copies what the sender writes into ASGI's `send`.

The sender writes into one end of a socket pair, as into the socket of a client; this end is read
only while the ASGI server takes more. So ids, resuming, gaps and the lag policy are the sender's.
"""

import asyncio
import contextlib
import socket
from typing import Final

from fastsse.asgi.exchange import Receive, Send, client_gone
from fastsse.asgi.responses import LAST, ResponseReader

__all__ = ["RELAY_BUFFER_BYTES", "StreamCut", "relay", "relay_pair"]

_READ_BYTES: Final = 64 * 1024
# Of a socket pair. Small, so that the lag of a slow client is the sender's to see; the kernel
# doubles it.
RELAY_BUFFER_BYTES: Final = 16 * 1024


class StreamCut(ConnectionError):
    """Raised into an ASGI server that offers no other way to end a response without its last
    chunk: the client is to see that the stream is not over."""


def relay_pair() -> tuple[socket.socket, socket.socket]:
    """The end for the sender, and the end to read from. Raises OSError."""
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for one in (theirs, ours):
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, RELAY_BUFFER_BYTES)
    return theirs, ours


async def relay(sock: socket.socket, receive: Receive, send: Send) -> bool:
    """Copies a stream until it or its client ends, and closes `sock`.

    Returns whether the response is complete; False: it was cut, and the connection must be closed
    without a last chunk. True also if the client is gone.
    """
    # It stops reading while more than twice the limit waits here.
    source, writer = await asyncio.open_unix_connection(sock=sock, limit=_READ_BYTES // 2)
    reader = ResponseReader()
    gone = asyncio.get_running_loop().create_task(client_gone(receive))
    # The end of the pair then ends the read below.
    gone.add_done_callback(lambda _: writer.transport.abort())
    try:
        while data := await source.read(_READ_BYTES):
            for message in reader.feed(data):
                await send(message)
            if reader.is_complete:
                await send(LAST)
                return True
        return gone.done()
    except ConnectionError:  # A server that says so to `send`.
        return True
    finally:
        reader.close()
        gone.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await gone
        writer.transport.abort()
