"""One client for publishing and subscribing, for asyncio."""

import asyncio
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import httpx
import orjson

from fastsse.client.errors import ClientError
from fastsse.client.exchanges import FIRST_WAIT_S
from fastsse.client.http import growing_wait_s, not_ours, refusal, sibling_path
from fastsse.client.listener import Listener, StreamState
from fastsse.client.outbox import Outbox
from fastsse.client.polling import EventPage, fetch_page
from fastsse.client.publisher import Publisher
from fastsse.client.receipts import Receipt
from fastsse.client.sending import OutboxSender
from fastsse.client.view import StreamView

__all__ = ["AsyncClient", "Pending"]

DEFAULT_TIMEOUT_S: Final = 30.0
# Fields of a request with one event. An outbox sends several in one.
_ALONE: Final = ("deliver_at", "delay", "receipt")


class Pending(ClientError):
    """The server has not answered within `timeout_s`. The event is in the outbox, which continues
    to send it."""

    exit_status = 3


class AsyncClient(Publisher):
    """Publishes and subscribes over one pool of keep-alive connections.

        async with AsyncClient("http://127.0.0.1:8080", token=TOKEN) as client:
            await client.publish("news", {"n": 1}, event="tick")
            async for event in client.subscribe("news"):
                print(event.data)

    It has all methods of Publisher.

    Arguments:
        url: a server (`http://127.0.0.1:8080`, which gets `/events`), or the address of its events.
        token: sent as `Authorization: Bearer`.
        headers: more headers.
        uds: a Unix socket to connect to, in place of the host in the URL.
        client: your own httpx client, for proxies or TLS; it stays open.
        timeout_s: how long a publish may take in total, with repeats at a busy server; 0 or more,
            30 by default.
        tries: attempts in a row without an event after which a subscription raises Unreachable, or
            Refused; None: no bound.
        outbox: keeps events until the server has them, and sends them again with the same key. A
            publish that is not answered within `timeout_s` raises Pending and goes on. The client
            does not close it.
        on_wait: called with the error and the seconds before a publish is repeated.

    Use it on the thread of one event loop only; calls may overlap. Raises ValueError for an invalid
    URL.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        uds: str | None = None,
        client: httpx.AsyncClient | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        tries: int | None = None,
        outbox: Outbox | None = None,
        on_wait: Callable[[ClientError, float], None] | None = None,
    ) -> None:
        if tries is not None and tries < 1:
            raise ValueError("tries must be 1 or more")
        super().__init__(
            url,
            token=token,
            headers=headers,
            uds=uds,
            client=client,
            patience_s=timeout_s,
            on_wait=on_wait,
        )
        self._address = url
        self._stream_options: dict[str, Any] = {
            "token": token,
            "headers": headers,
            "uds": uds,
            "client": self._exchanges.client,
            "tries": tries,
        }
        self._outbox = outbox
        self._sender: OutboxSender | None = None
        if outbox is not None:
            self._sender = OutboxSender(outbox, super().publish_ndjson, self._wait_again)

    async def publish(self, topics: str | Sequence[str], data: Any, **fields: Any) -> Receipt:
        """As `Publisher.publish`. With an outbox it also raises Pending and OutboxFull, and the
        receipt has no id if several events were sent in one request; ValueError for `delay`,
        `deliver_at` and `receipt`, which are for a request with one event."""
        if self._sender is None:
            return await super().publish(topics, data, **fields)
        for name in _ALONE:
            if fields.get(name) not in (None, False):
                raise ValueError(f"{name} can't be combined with an outbox")
        names = topics if isinstance(topics, str) else list(topics)
        line: dict[str, Any] = {"topic": names, "data": data, **fields}
        line["key"] = fields.get("key") or uuid.uuid4().hex
        answer = await self._sender.add(orjson.dumps(_present(line)))
        done, _ = await asyncio.wait((answer,), timeout=self._exchanges.patience.patience_s)
        if not done:
            raise Pending("The event waits in the outbox; the server has not answered yet.")
        return answer.result()

    def subscribe(
        self,
        topics: str | Iterable[str] = (),
        *,
        last_event_id: str = "",
        last: int | None = None,
        last_each: int | None = None,
        since: str | None = None,
        view: StreamView | None = None,
        on_state: Callable[[StreamState], None] | None = None,
        **more: Any,
    ) -> Listener:
        """The events of topics, across connections: an async iterator of ReceivedEvent, and an
        async context manager. `event.gap` of a gap event says what is missing.

        Arguments: as of Listener; `more` are its `idle_timeout_s`, `max_event_bytes` and
        `reconnect`. Iteration raises as that of a Listener.
        """
        return Listener(
            self._address,
            topics,
            last_event_id=last_event_id,
            last=last,
            last_each=last_each,
            since=since,
            view=view,
            on_state=on_state,
            **{**self._stream_options, **more},
        )

    async def fetch_page(
        self,
        topics: str | Iterable[str],
        *,
        wait_s: float = 0,
        last_event_id: str = "",
        last: int | None = None,
        since: str | None = None,
        view: StreamView | None = None,
    ) -> EventPage:
        """The next page of events, without a stream: at once, or when the next event comes.

        Arguments and errors: as of the function `fetch_page`.
        """
        return await fetch_page(
            self._address,
            topics,
            wait_s=wait_s,
            last_event_id=last_event_id,
            last=last,
            since=since,
            view=view,
            token=self._stream_options["token"],
            headers=self._stream_options["headers"],
            client=self._exchanges.client,
        )

    async def ticket(self, token: str) -> str:
        """A ticket for a page: an EventSource that opens `?ticket=…` has the rights of `token`,
        which need not be that of this client. It must be opened within the server's
        `ticket_lifetime` (30 s by default). Raises Refused, Unreachable, OutcomeUnknown."""
        url = self._url.copy_with(path=sibling_path(self._url, "/tickets"), params=None)
        headers = [one for one in self._headers if one[0] != b"Authorization"]
        headers.append((b"Authorization", f"Bearer {token}".encode()))
        response, answer = await self._exchanges.send(url, b"", headers)
        if response.status_code not in (200, 201):
            raise refusal(response, answer)
        try:
            ticket: str = orjson.loads(answer)["ticket"]
        except (ValueError, KeyError, TypeError):
            raise not_ours() from None
        return ticket

    async def flush(self) -> None:
        """Returns when the outbox is empty, or at once without an outbox. It also sends events of
        an earlier process. It has no time limit, and raises nothing: failures are logged and tried
        again, and an event that the server refuses is logged and dropped."""
        if self._sender is not None:
            await self._sender.flush()

    async def aclose(self) -> None:
        """Closes the connections. Waiting events stay in the outbox. Idempotent."""
        if self._sender is not None:
            await self._sender.close()
        await super().aclose()

    async def _wait_again(self, failures: int) -> None:
        await asyncio.sleep(growing_wait_s(FIRST_WAIT_S, failures, self._exchanges.patience.rand))


def _present(line: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that were given; bytes as text."""
    found = {
        name: value
        for name, value in line.items()
        if name == "data" or not (value is None or value is False)
    }
    if isinstance(found.get("data"), bytes):
        found["data"] = found["data"].decode()
    return found
