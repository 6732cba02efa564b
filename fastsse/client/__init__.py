"""Clients for fastsse, and for other event streams.

    async with AsyncClient("http://127.0.0.1:8080") as client:
        await client.publish("news", "hello")
        async for event in client.subscribe("news"):
            print(event.data)

`Client` is the same for programs without asyncio. `Publisher` and `listen` are the halves of
`AsyncClient`; `listen` reads any event stream.

httpx does HTTP, with proxies, TLS, redirects and Unix sockets. The package `fastsse-client` has
only this folder, without native code.
"""

from fastsse.client.asyncclient import AsyncClient, Pending
from fastsse.client.decoder import Decoder, Gap, ReceivedEvent
from fastsse.client.errors import (
    ClientError,
    EventTooLarge,
    OutcomeUnknown,
    Refused,
    Unreachable,
)
from fastsse.client.listener import Listener, StreamState, listen
from fastsse.client.outbox import Outbox, OutboxFull
from fastsse.client.polling import EventPage, fetch_page
from fastsse.client.publisher import Publisher
from fastsse.client.receipts import Receipt
from fastsse.client.relaying import RelayBroken, Relayed, relay
from fastsse.client.scheduled import ScheduledEvent
from fastsse.client.syncclient import Client, Subscription
from fastsse.client.view import Envelope, StreamView

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "Decoder",
    "Envelope",
    "EventPage",
    "EventTooLarge",
    "Gap",
    "Listener",
    "Outbox",
    "OutboxFull",
    "OutcomeUnknown",
    "Pending",
    "Publisher",
    "Receipt",
    "ReceivedEvent",
    "Refused",
    "RelayBroken",
    "Relayed",
    "ScheduledEvent",
    "StreamState",
    "StreamView",
    "Subscription",
    "Unreachable",
    "fetch_page",
    "listen",
    "relay",
]
