"""The server as others use it: inside an asyncio program, or as a program of its own.

`Server` leaves the process alone. `run` raises limits, takes signals and drains.
"""

import asyncio
import contextlib
import gc
import signal
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

import uvloop

from fastsse.config import Config
from fastsse.http.descriptors import raise_soft_limit
from fastsse.log import get_logger
from fastsse.worker import Worker

__all__ = ["Server", "run"]

log = get_logger("server")
# Young objects are nearly all freed by their counts; looking for cycles less often saves time.
GC_THRESHOLD: Final = 20_000


class Server:
    """A server in an asyncio program, on asyncio's own loop or uvloop's.

        async with fastsse.Server(Config(port=0)) as server:
            server.publish("news", {"n": 1}, event="tick")

    It starts on entering and drains on leaving; after an exception it ends all streams at once.
    It takes no signals and changes no process limit. Everything is for the loop thread; what
    needs a running server raises RuntimeError without one.

    Raises ConfigError or ListenError on entering, and has then left nothing behind.
    """

    def __init__(self, config: Config | None = None) -> None:
        self.config: Final = Config() if config is None else config
        self._running: Worker | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.drain(0 if kind else None)
        finally:
            await self.close()

    @property
    def port(self) -> int:
        """The TCP port listened on; 0 when there is none."""
        return self._worker.entrance.main.port

    @property
    def addresses(self) -> list[str]:
        """Where subscribers and publishers come in: `http://127.0.0.1:8080`, `unix:/path`."""
        return self._worker.entrance.main.addresses

    @property
    def admin_addresses(self) -> list[str]:
        """Where health, metrics, statistics and the page are: elsewhere with `admin_port`."""
        return self._worker.entrance.admin.addresses

    @property
    def max_connections(self) -> int:
        """Streams that can be open at once."""
        return self._worker.max_connections

    @property
    def stream_count(self) -> int:
        """Streams that are open now."""
        return self._worker.stream_count

    def publish(
        self,
        topic: str | Sequence[str],
        data: Any,
        *,
        event: str | None = None,
        id: str | None = None,
        retry: int | None = None,
    ) -> str:
        """Publishes one event and returns its id.

        Arguments:
            topic: one topic or up to 100.
            data: text or UTF-8 bytes as they are; anything else as compact JSON.
            event, id, retry: as Event takes them; retry in milliseconds.

        Raises InvalidEvent for what can't be published, Refused when the server can't take it
        now. O(bytes + topics), whatever the subscribers.
        """
        return self._worker.publish(topic, data, event, id, retry)

    async def start(self) -> None:
        """Binds, starts the sender, listens; logs one line about it. `close` undoes it."""
        if self._running is not None:
            raise RuntimeError("The server is running already.")
        self._running = Worker(self.config)

    async def drain(self, window_s: float | None = None) -> None:
        """Stops listening and ends all streams spread over a time (the option `drain`), each told
        when to come back; publishers get 503. Returns when all are gone, or 1 s after the window.
        """
        if self._running is not None:
            await self._running.drain(self.config.drain if window_s is None else window_s)

    async def close(self) -> None:
        """Ends everything at once: no descriptor, thread or timer is left. Idempotent."""
        running, self._running = self._running, None
        if running is not None:
            await running.close()

    @property
    def _worker(self) -> Worker:
        if self._running is None:
            raise RuntimeError("The server is not running.")
        return self._running


def run(config: Config) -> int:
    """Serves until SIGTERM or SIGINT, drains, and returns the process's exit status: 0, or 128
    plus the number of a second signal, which ends it at once.

    Raises ConfigError or ListenError before anything is served. Main thread only. Logging is the
    caller's to configure.
    """
    raise_soft_limit(config.max_connections)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(config))


async def _serve(config: Config) -> int:
    loop = asyncio.get_running_loop()
    signals: asyncio.Queue[int] = asyncio.Queue()
    server = Server(config)
    with contextlib.ExitStack() as undo:
        # Before anybody knows that it serves.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, signals.put_nowait, number)
            undo.callback(loop.remove_signal_handler, number)
        loop.add_signal_handler(signal.SIGHUP, _on_hangup)
        undo.callback(loop.remove_signal_handler, signal.SIGHUP)
        await server.start()
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, *gc.get_threshold()[1:])
        try:
            await signals.get()
            return await _drained_or_signalled(server, signals)
        finally:
            await server.close()


async def _drained_or_signalled(server: Server, signals: "asyncio.Queue[int]") -> int:
    draining = asyncio.create_task(server.drain())
    again = asyncio.create_task(signals.get())
    done, pending = await asyncio.wait((draining, again), return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    if draining in done:
        draining.result()
        log.info("Stopped.")
        return 0
    log.warning("Stopped by a second signal.", signal=again.result())
    return 128 + again.result()


def _on_hangup() -> None:
    log.warning("SIGHUP is ignored: reloading needs a restart.")
