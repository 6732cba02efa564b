"""Subscriptions of a process, from its start to its end."""

import ipaddress
from collections.abc import Sequence
from typing import Final

from fastsse.config import Config
from fastsse.control.service import Broadcast, ControlStore, Publish, Service
from fastsse.wakes.delivery import WakeCalls
from fastsse.wakes.index import StreamRowsHere
from fastsse.wakes.service import WakeService

__all__ = ["SUBJECT", "StreamWakes"]

SUBJECT: Final = "wakes"


class StreamWakes:
    """Subscriptions of this process, from its start to its end. Loop thread only.

    Arguments:
        rows: the streams; None where another process has them: then there is no service.
        networks: private networks that webhooks may reach.
    """

    def __init__(self, rows: StreamRowsHere | None, networks: Sequence[str]) -> None:
        self.rows: Final = rows
        self._calls: Final = WakeCalls([ipaddress.ip_network(text) for text in networks])
        self._service: WakeService | None = None

    @classmethod
    def of(cls, backbone: object, config: Config) -> "StreamWakes":
        """The subscriptions to the streams of a backbone, if that keeps stream rows."""
        return cls(getattr(backbone, "streams", None), config.outbound_networks)

    def make(self, broadcast: Broadcast, store: ControlStore, publish: Publish) -> Service:
        """Makes the service, as `MakeService`."""
        assert self.rows is not None
        self._service = WakeService(self.rows, store, publish, self._calls)
        return self._service

    async def close(self) -> None:
        """Cancels running calls. Subscriptions continue after the next start."""
        if self._service is not None:
            await self._service.end()
        await self._calls.close()
