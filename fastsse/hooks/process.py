"""Hooks of a process, from its start to its end."""

import asyncio
import ipaddress
from collections import Counter
from typing import Final

from fastsse.config import Config
from fastsse.control.service import Broadcast, ControlStore, Publish, Service
from fastsse.hooks.outlet import Outlet, Receiver
from fastsse.hooks.service import HookService
from fastsse.hooks.streamhandlers import StreamHandlers
from fastsse.hooks.webhook import HookWebhook
from fastsse.log import get_logger
from fastsse.outbound import AddressGuard

__all__ = ["StreamHooks"]

log = get_logger("hooks")
COUNTS: Final = (
    "hook_notices",
    "hook_requests",
    "hook_failures",
    "hook_given_up",
    "hook_dropped",
)
# The pause before an outlet that failed unexpectedly goes on.
AGAIN_S: Final = 5.0


class StreamHooks:
    """The hooks of the options, and the handlers of the program. Loop thread only.

    Arguments:
        config: the options.
        handlers: functions of the program around a server.
    """

    def __init__(self, config: Config, handlers: StreamHandlers | None = None) -> None:
        self._config = config
        self._handlers = handlers or StreamHandlers()
        self._counts: Counter[str] = Counter()
        self._outlets: list[Outlet] = []
        self._tasks: list[asyncio.Task[None]] = []

    def __bool__(self) -> bool:
        return bool(self._config.hooks) or bool(self._handlers)

    @property
    def wants_streams(self) -> bool:
        """Whether a hook is about single streams."""
        return self._handlers.wants_streams or any(
            {"connect", "disconnect"} & set(rule.on) for rule in self._config.hooks
        )

    def make(self, broadcast: Broadcast, store: ControlStore, publish: Publish) -> Service:
        """Makes the service, as `MakeService`, and starts its outlets."""
        service = HookService(self._counts)
        networks = [ipaddress.ip_network(text) for text in self._config.outbound_networks]
        guard = AddressGuard(networks)
        receivers: list[Receiver] = [
            HookWebhook(rule, guard, self._counts) for rule in self._config.hooks
        ]
        receivers += self._handlers.receivers(self._counts)
        self._outlets = [Outlet(one, service.is_active, self._counts) for one in receivers]
        service.outlets = self._outlets
        self._tasks = [asyncio.create_task(_kept_running(one)) for one in self._outlets]
        return service

    def counters(self) -> dict[str, int]:
        """The counters of hooks; empty without hooks."""
        return {name: self._counts[name] for name in COUNTS} if self else {}

    async def close(self) -> None:
        """Ends the outlets, and notifies receivers that the node stops."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(one.close() for one in self._outlets), return_exceptions=True)
        self._tasks, self._outlets = [], []


async def _kept_running(outlet: Outlet) -> None:
    while True:
        try:
            await outlet.run()
        except Exception:
            log.exception("A hook failed; it goes on.")
        await asyncio.sleep(AGAIN_S)
