"""The service in one process: one worker with the hub inside, and no supervisor."""

import asyncio
import contextlib
import signal
from collections.abc import Callable

import uvloop

from fastsse.config import Config
from fastsse.errors import FastsseError
from fastsse.http.descriptors import of_a_stream, raise_soft_limit
from fastsse.interceptors import interrupt_interceptors
from fastsse.log import configure, get_logger
from fastsse.supervisor.changes import adapted, fixed_while_serving, sentence
from fastsse.supervisor.notify import STATUS_EVERY_S, Notifier
from fastsse.supervisor.pidfile import PidFile
from fastsse.supervisor.process_setup import settle_memory
from fastsse.supervisor.reloadsocket import Outcome, ReloadSocket
from fastsse.supervisor.sockets import Activation, open_for_workers
from fastsse.worker import Worker

__all__ = ["run_alone"]

log = get_logger("server")


def run_alone(
    config: Config,
    load: Callable[[], Config],
    notifier: Notifier,
    activation: Activation,
) -> int:
    """Serves in this process until a signal ends it; returns the exit status.

    Raises ConfigError, ListenError or PidFileError before anything is served.
    """
    raise_soft_limit(config.max_connections, of_a_stream(config)[0])
    with contextlib.ExitStack() as stack:
        pidfile = None
        if config.pidfile is not None:
            pidfile = stack.enter_context(contextlib.closing(PidFile(config.pidfile)))
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        return runner.run(_Alone(config, load, notifier, activation, pidfile).serve())


class _Alone:
    """The only process, in its loop."""

    def __init__(
        self,
        config: Config,
        load: Callable[[], Config],
        notifier: Notifier,
        activation: Activation,
        pidfile: PidFile | None,
    ) -> None:
        self._config = config
        self._load = load
        self._notifier = notifier
        self._activation = activation
        self._pidfile = pidfile
        self._signals: asyncio.Queue[int] = asyncio.Queue()
        self._control: ReloadSocket | None = None
        self._status = ""

    async def serve(self) -> int:
        """From the first socket to the exit status."""
        loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as stack:
            # Before any client or tool knows that it serves.
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._signals.put_nowait, number)
                stack.callback(loop.remove_signal_handler, number)
            loop.add_signal_handler(signal.SIGHUP, self._reload)
            stack.callback(loop.remove_signal_handler, signal.SIGHUP)
            (sockets,) = open_for_workers(self._config, 1, self._activation)
            stack.callback(sockets.close)
            interrupt_interceptors()
            self._worker = await Worker.open(self._config, sockets=sockets)
            stack.push_async_callback(self._worker.close)
            self._open_control(loop)
            if self._control is not None:
                stack.callback(self._control.close)
            settle_memory()
            self._notifier.ready(self._status_line())
            stack.callback(self._report_regularly(loop))
            await self._signals.get()
            self._notifier.stopping()
            return await self._drained_or_signalled()

    def _open_control(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._pidfile is not None:
            self._control = ReloadSocket(
                self._pidfile,
                lambda sock, on_readable: loop.add_reader(sock.fileno(), on_readable),
                lambda sock: loop.remove_reader(sock.fileno()),
                self._reload,
            )

    def _reload(self) -> None:
        """Applies the options that can change in a running worker, and names the others."""
        self._notifier.reloading()
        try:
            wanted = self._load()
            fixed = fixed_while_serving(self._config, wanted)
            config, kept = adapted(self._config, wanted, fixed)
            self._worker.apply(config)
        except FastsseError as error:
            log.error("Reload refused; all is as it was.", reason=str(error))
            outcome = Outcome(False, str(error))
        else:
            self._config = config
            configure(config)
            if kept:
                log.warning("Some options change only with a restart.", options=kept)
            log.info("Reloaded.")
            outcome = Outcome(True, f"Reloaded. {sentence(kept)}".rstrip())
        self._notifier.ready(self._status_line())
        if self._control is not None:
            self._control.answer(outcome)

    def _status_line(self) -> str:
        return f"Serves {self._worker.stream_count} streams."

    def _report_regularly(self, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
        """Keeps the service manager informed; returns how to stop that."""
        watchdog_s = self._notifier.watchdog_s
        every_s = STATUS_EVERY_S if watchdog_s is None else min(watchdog_s, STATUS_EVERY_S)
        timer: list[asyncio.TimerHandle] = []

        def report() -> None:
            if watchdog_s is not None:
                self._notifier.alive()
            status = self._status_line()
            if status != self._status and self._signals.empty():
                self._status = status
                self._notifier.status(status)
            timer[:] = [loop.call_later(every_s, report)]

        report()
        return lambda: timer[0].cancel()

    async def _drained_or_signalled(self) -> int:
        draining = asyncio.create_task(self._worker.drain(self._config.drain))
        again = asyncio.create_task(self._signals.get())
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
