"""The service as the supervisor runs it: what its hub and workers do."""

import contextlib
import math
import socket
from collections.abc import Callable, Sequence

from fastsse.api.bound_sockets import Sockets
from fastsse.api.startlines import start_lines
from fastsse.config import Config
from fastsse.config.store import show_store
from fastsse.errors import FastsseError
from fastsse.http.descriptors import of_a_stream, raise_soft_limit
from fastsse.http.listeners import SocketFiles, addresses_of
from fastsse.log import configure, get_logger, is_console
from fastsse.supervisor.board import ConfigBoard
from fastsse.supervisor.changes import adapted, fixed_for_workers, sentence, taken_over
from fastsse.supervisor.family import Plan
from fastsse.supervisor.forking import Closable
from fastsse.supervisor.hub_process import LifeLine, serve_hub
from fastsse.supervisor.notify import Notifier
from fastsse.supervisor.pidfile import PidFile
from fastsse.supervisor.process_link import ProcessLink
from fastsse.supervisor.process_setup import settle_memory
from fastsse.supervisor.reloadsocket import ReloadSocket
from fastsse.supervisor.sockets import Activation, open_for_workers
from fastsse.supervisor.supervisor import Supervisor
from fastsse.supervisor.worker_process import serve_worker, start_failed
from fastsse.version import __version__

__all__ = ["ServiceProcesses", "run_service"]

log = get_logger("server")


class ServiceProcesses:
    """A hub process and workers on their sockets: the supervisor's crew.

    Arguments:
        config: the options.
        load: reads them again.
        origin_of: where an option's value came from.
        sockets: each worker's.
    """

    def __init__(
        self,
        config: Config,
        load: Callable[[], Config],
        origin_of: Callable[[str], str],
        sockets: Sequence[Sockets],
    ) -> None:
        self._config = self._config_before = config
        self._load = load
        self._origin_of = origin_of
        self._sockets = sockets
        self._life = LifeLine()
        self._board = ConfigBoard()
        self._hub = _hub_socket()
        #: Answers `fastsse reload`, when there is a pid file.
        self.control: ReloadSocket | None = None

    @property
    def window_s(self) -> float:
        """The time over which a stop ends the streams, s."""
        return self._config.drain

    def serve(self, slot: int, number: int, link: ProcessLink) -> int:
        """Runs a child; called in the child process."""
        try:
            if slot < 0:
                return serve_hub(
                    self._config, self._board, self._hub, len(self._sockets), number > 0,
                    self._life, link,
                )  # fmt: skip
            everybodys = [sockets.main for sockets in self._sockets]
            sockets = self._sockets[slot]._replace(all=everybodys, slot=slot, is_lent=True)
            address = self._hub.getsockname()
            return serve_worker(self._share(), self._board, sockets, number, address, link)
        except FastsseError as error:
            return start_failed(link, error, self._origin_of)

    def on_serving(self) -> None:
        """Logs where."""
        config, first, workers = self._config, self._sockets[0], len(self._sockets)
        scheme = "https" if config.tls_cert else "http"
        main, admin = addresses_of(first.main, scheme), addresses_of(first.admin, scheme)
        if is_console():
            said, *more = start_lines(config, main, admin or main, first.has_page(config), workers)
            log.info(said, more=more)
            return
        log.info(
            "fastsse is serving.",
            version=__version__,
            addresses=main,
            **({"admin": admin} if admin else {}),
            workers=workers,
            store=show_store(config.store),
            publish="with a token" if config.publishing_needs_token else "by anyone",
        )

    def reload(self) -> Plan:
        """Reads the configuration for new workers, and keeps the options that they can't change.
        Topic rules are posted for the processes that run."""
        new = self._load()
        config, kept = adapted(self._config, new, fixed_for_workers(self._config, new))
        self._config_before, self._config = self._config, config
        configure(config)
        if kept:
            log.warning("Some options change only with a restart.", options=kept)
        is_posted, replaces = taken_over(self._config_before, config)
        if is_posted:
            self._board.post(self._share())
        return Plan(sentence(kept), is_posted, replaces)

    def revert(self) -> bool:
        """Undoes the last `reload`; whether processes that run must do so too."""
        self._config_before, self._config = self._config, self._config_before
        configure(self._config)
        is_posted, _ = taken_over(self._config_before, self._config)
        if is_posted:
            self._board.post(self._share())
        return is_posted

    def left_by_child(self) -> Sequence[Closable]:
        """What a child must close."""
        return self.control.descriptors if self.control is not None else ()

    def close(self) -> None:
        """Closes the resources that all children shared."""
        self._life.close()
        self._board.close()
        self._hub.close()
        for sockets in self._sockets:
            sockets.close()

    def _share(self) -> Config:
        """One worker's share of the streams."""
        most = self._config.max_connections
        each = math.ceil(most / len(self._sockets))
        return self._config.model_copy(update={"max_connections": each}) if most else self._config


def _hub_socket() -> socket.socket:
    """The socket between workers and hub. The kernel chooses its name, so no file is left
    behind."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind("")
    sock.listen(1024)
    sock.setblocking(False)
    return sock


def run_service(
    config: Config,
    workers: int,
    load: Callable[[], Config],
    origin_of: Callable[[str], str],
    notifier: Notifier,
    activation: Activation,
) -> int:
    """Serves with several processes until a signal ends it; returns the exit status.

    Raises ConfigError, ListenError, PidFileError or StartError when it can't serve.
    """
    raise_soft_limit(math.ceil(config.max_connections / workers), of_a_stream(config)[0])
    with contextlib.ExitStack() as stack:
        pidfile = None
        if config.pidfile is not None:
            pidfile = stack.enter_context(contextlib.closing(PidFile(config.pidfile)))
        sockets = open_for_workers(config, workers, activation)
        if not sockets[0].is_lent:
            stack.callback(SocketFiles(sockets[0].main).remove)
        service = stack.enter_context(
            contextlib.closing(ServiceProcesses(config, load, origin_of, sockets))
        )
        supervisor = Supervisor(service, workers, with_hub=True, notifier=notifier)
        if pidfile is not None:
            control = ReloadSocket(
                pidfile, supervisor.watch, supervisor.unwatch, supervisor.begin_reload
            )
            stack.callback(control.close)
            supervisor.reloaded = control.answer
            service.control = control
        # Memory that a child does not change is shared by all.
        settle_memory()
        return supervisor.run()
