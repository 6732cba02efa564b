"""Subscriptions of a process, from its start to its end."""

import ipaddress
from collections.abc import Sequence
from typing import Final

from fastsse.config import Config
from fastsse.control.service import Broadcast, ControlStore, Publish, Service
from fastsse.wakes.delivery import WakeCalls
from fastsse.wakes.index import StreamRowsHere
from fastsse.wakes.service import WakeService
from fastsse.wakes.shared import SUBJECT, SharedRows, SharedWakes

__all__ = ["SUBJECT", "StreamWakes"]


class StreamWakes:
    """Subscriptions of this process, from its start to its end. Loop thread only.

    Arguments:
        rows: the streams of this node; None: several nodes share them, or another process has them.
        shared: the streams that several nodes share; None: there are none. Without both there is no
            service.
        networks: private networks that webhooks may reach.
    """

    def __init__(
        self, rows: StreamRowsHere | None, shared: SharedRows | None, networks: Sequence[str]
    ) -> None:
        self._rows: Final = rows
        self._shared: Final = shared
        self._calls: Final = WakeCalls([ipaddress.ip_network(text) for text in networks])
        self._service: WakeService | SharedWakes | None = None

    @classmethod
    def of(cls, backbone: object, config: Config) -> "StreamWakes":
        """The subscriptions to the streams of a backbone, if that keeps stream rows."""
        rows, shared = (getattr(backbone, name, None) for name in ("streams", "followed_streams"))
        return cls(rows, shared, config.outbound_networks)

    def __bool__(self) -> bool:
        """Whether there is a service."""
        return self._rows is not None or self._shared is not None

    def make(self, broadcast: Broadcast, store: ControlStore, publish: Publish) -> Service:
        """Makes the service, as `MakeService`."""
        owned, messaging, shared = store.owned, store.messaging, self._shared
        if shared is not None and owned is not None and messaging is not None:
            self._service = SharedWakes(
                shared,
                owned,
                messaging,
                lambda: WakeService(shared, owned, publish, self._calls),
            )
        else:
            assert self._rows is not None
            self._service = WakeService(self._rows, store, publish, self._calls)
        return self._service

    async def close(self) -> None:
        """Cancels running calls. Subscriptions continue after the next start."""
        if self._service is not None:
            await self._service.end()
        await self._calls.close()
