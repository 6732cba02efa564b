"""A client for fastsse and for other event streams: listening and publishing with asyncio.

    async for event in fastsse.client.listen("http://127.0.0.1:8080", "news"):
        print(event.data)

HTTP is httpx's: typed, kept, with proxies, TLS, redirects and Unix sockets.
"""

from fastsse.client.decoder import Decoder, Gap, ReceivedEvent
from fastsse.client.errors import (
    ClientError,
    EventTooLarge,
    OutcomeUnknown,
    Refused,
    Unreachable,
)
from fastsse.client.listener import Listener, StreamState, listen
from fastsse.client.publisher import Publisher, Receipt
from fastsse.client.view import Envelope, StreamView

__all__ = [
    "ClientError",
    "Decoder",
    "Envelope",
    "EventTooLarge",
    "Gap",
    "Listener",
    "OutcomeUnknown",
    "Publisher",
    "Receipt",
    "ReceivedEvent",
    "Refused",
    "StreamState",
    "StreamView",
    "Unreachable",
    "listen",
]
