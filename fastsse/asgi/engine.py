"""The server behind a mount: a worker without listeners of its own."""

import asyncio
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from fastsse.api.access import Access
from fastsse.api.bound_sockets import Sockets
from fastsse.bus import connect
from fastsse.config import Config
from fastsse.http.listener_context import ListenerContext
from fastsse.http.listeners import ListenError, open_tcp
from fastsse.interceptors import Interceptor
from fastsse.log import get_logger
from fastsse.server import Server
from fastsse.stores import OpenedStores
from fastsse.worker import Hooks, Worker

if TYPE_CHECKING:
    from fastsse.asgi.serving import Serving

__all__ = ["Engine"]

log = get_logger("asgi")
# After this time a worker that waits for the hub process logs it.
SLOW_START_S: Final = 2.0


class Engine(Server):
    """A `Server` that gets its sockets from another server. Loop thread only.

    Arguments:
        config: the options; those of listeners have no effect, but for `admin_port`.
        hub_socket: the Unix socket of `fastsse hub`; None: the store of the options.
        access: decides who may read and publish; None: as the options say.
        serving: counts streams.
        interceptors: as of Server.

    Attributes:
        on_ended: called with the reason when the hub process gave this worker up.
    """

    def __init__(
        self,
        config: Config,
        hub_socket: str | None,
        access: Access | None,
        serving: "Serving",
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        super().__init__(config, interceptors=interceptors)
        self._hub_socket = hub_socket
        self._access = access
        self._serving = serving
        self.on_ended: Callable[[str], None] = lambda reason: None

    @property
    def context(self) -> ListenerContext:
        """What requests share."""
        return self._worker.frontend.context

    def abandon(self) -> None:
        """Releases all after the loop was closed, which `close` can't do any more."""
        running, self._running = self._running, None
        if running is not None:
            running.abandon()

    async def _open(self, hooks: Hooks) -> Worker:
        viewers = self._serving.viewers
        hooks = Hooks(
            hooks.interceptors,
            hooks.handlers,
            self._access,
            self._serving.counters,
            lambda stream: viewers.closed(stream.selectors),
            hooks.stream_handlers,
        )
        if self._hub_socket is None:
            sockets = Sockets((), self._admin_sockets(), all=((),))
            try:
                return await Worker.open(self.config, sockets=sockets, hooks=hooks)
            except BaseException:
                sockets.close()
                raise
        return await self._join(self._hub_socket, hooks)

    async def _join(self, path: str, hooks: Hooks) -> Worker:
        """A worker of the hub process at a path; waits for one while there is none."""
        loop = asyncio.get_running_loop()
        # Process numbers are not unique where containers share the socket.
        number = secrets.randbits(31)
        slow = loop.call_later(SLOW_START_S, _say_slow, path)
        try:
            backbone, control = await connect(path, worker=number, key=os.urandom(8))
        finally:
            slow.cancel()
        try:
            worker = Worker(
                self.config,
                sockets=Sockets((), self._admin_sockets(), all=((),)),
                stores=OpenedStores(backbone, None),
                control=control,
                number=number,
                hooks=hooks,
            )
        except BaseException:
            await backbone.close()
            raise
        backbone.ended.add_done_callback(self._on_ended)
        return worker

    def _on_ended(self, ended: "asyncio.Future[str]") -> None:
        if not ended.cancelled() and self._running is not None:
            self.on_ended(ended.result())

    def _admin_sockets(self) -> Sequence[socket.socket]:
        """The listener of `admin_port`. Of several workers that share it, the first has it."""
        config = self.config
        if config.admin_port is None:
            return ()
        try:
            return open_tcp(config.host, config.admin_port, "admin_port", config)
        except ListenError:
            if self._hub_socket is None:
                raise
            log.info("Another worker serves the admin port.", port=config.admin_port)
            return ()


def _say_slow(path: str) -> None:
    log.warning("Waiting for the hub process (fastsse hub --socket).", path=path)
