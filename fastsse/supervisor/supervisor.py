"""Watches the children: starts missing ones, replaces old ones, and ends all at a stop.

One thread, no event loop. The thread never waits for a single child: each event is a readable
descriptor (a signal, a packet of a child, a reload request) or a time that is due.
"""

import os
import selectors
import signal
import socket
import time
from collections.abc import Callable

from fastsse.errors import FastsseError
from fastsse.log import get_logger
from fastsse.supervisor.children import Child
from fastsse.supervisor.family import Family, ProcessPlan
from fastsse.supervisor.notify import STATUS_EVERY_S, Notifier
from fastsse.supervisor.process_link import DRAIN, END
from fastsse.supervisor.process_setup import SignalPipe
from fastsse.supervisor.reloading import Reload
from fastsse.supervisor.reloadsocket import Outcome

__all__ = ["StartError", "Supervisor"]

log = get_logger("supervisor")
# A child is killed this long after the window of the drain,
END_GRACE_S = 5.0
# or this long after the order to end at once.
AT_ONCE_S = 2.0


class StartError(FastsseError):
    """A child could not start. `exit_status` is the one that the program ends with."""

    def __init__(self, text: str, exit_status: int) -> None:
        super().__init__(text)
        self.exit_status = exit_status


class Supervisor:
    """Runs workers, and a hub process if they need one. Main thread only.

    Arguments:
        crew: what they do.
        workers: how many.
        with_hub: whether a hub process serves them.
        notifier: sends the state to systemd.
        now_s: a monotonic clock.

    Attributes:
        reloaded: called with the result of each reload.
    """

    def __init__(
        self,
        crew: ProcessPlan,
        workers: int,
        *,
        with_hub: bool,
        notifier: Notifier,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.reloaded: Callable[[Outcome], None] = lambda outcome: None
        self._crew = crew
        self._notifier = notifier
        self._now_s = now_s
        # Not epoll, because a child would share it.
        self._selector = selectors.PollSelector()
        self._family = Family(crew, workers, with_hub, self._selector, now_s)
        self._family.on_ready, self._family.on_end = self._on_ready, self._on_end
        self._reload = Reload(crew, self._family, self._on_reloaded)
        self._family.on_applied = self._reload.on_applied
        self._served = False
        self._stopped_by = 0
        self._ends_at_once = False
        self._kill_at_s: float | None = None
        self._status, self._reported_s, self._alive_s = "", 0.0, 0.0
        self._failure: StartError | None = None

    def run(self) -> int:
        """Serves until SIGTERM or SIGINT, drains, and returns the exit status: 0, or 128 plus the
        number of a second signal. Raises StartError when a child can't serve at the first start.
        """
        signals = SignalPipe()
        family = self._family
        self._selector.register(signals, selectors.EVENT_READ, lambda: self._take(signals))
        try:
            for slot in family.slots:
                slot.due_s = self._now_s()
            # If the store can't be opened, no other process needs to start.
            family.start_due(family.slots[:1] if family.hub else family.slots)
            while family.children or not self._stopped_by:
                for key, _ in self._selector.select(self._timeout_s()):
                    key.data()
                self._look_at_clock()
        finally:
            family.bury()
            signals.close()
            self._selector.close()
        if self._failure is not None:
            raise self._failure
        if self._ends_at_once:
            return 128 + self._stopped_by
        log.info("Stopped.")
        return 0

    def begin_reload(self) -> None:
        """Has the service take the present configuration: its processes take over what they can,
        and else every worker is replaced. `reloaded` is called with the result."""
        if self._stopped_by or not self._served:
            self.reloaded(Outcome(False, "Not now: the service starts or stops."))
            return
        if not self._reload.is_under_way:
            self._notifier.reloading()
        self._reload.begin()

    def watch(self, sock: socket.socket, on_readable: Callable[[], None]) -> None:
        """Calls `on_readable` whenever a socket is readable."""
        self._selector.register(sock, selectors.EVENT_READ, on_readable)

    def unwatch(self, sock: socket.socket) -> None:
        """Stops watching a socket. Call it before the socket is closed. After `run` nothing is
        watched."""
        if self._selector.get_map() is not None:
            self._selector.unregister(sock)

    # -- what happens ---------------------------------------------------------------------------

    def _take(self, signals: SignalPipe) -> None:
        for number in signals.take():
            if number == signal.SIGCHLD:
                self._family.reap()
            elif number == signal.SIGHUP:
                self.begin_reload()
            elif self._stopped_by:
                log.warning("Stopped by a second signal.", signal=int(number))
                self._end_at_once(number)
            else:
                self._stop(number)

    def _on_ready(self, child: Child) -> None:
        family = self._family
        slot = family.slot_of(child)
        if self._stopped_by:
            return
        if slot is not None and slot.newcomer is child:
            self._reload.on_ready(slot)
        elif not self._served:
            family.start_due(family.workers)
            if family.all_serve():
                self._served = True
                self._crew.on_serving()
                self._report_status(ready=True)

    def _on_end(self, child: Child, how: str) -> None:
        slot = self._family.slot_of(child)
        self._reload.on_applied(child)
        if self._stopped_by:
            self._end_hub_if_last()
        elif child.leaving or slot is None:
            return
        elif not self._served:
            status, text = child.failure or (1, f"The {child.name} process ended with {how}.")
            self._failure = StartError(text, status)
            self._end_at_once(signal.SIGTERM)
        elif slot.newcomer is child:
            self._reload.on_end(slot, child, how)
        else:
            pause_s = slot.lost(child, self._now_s())
            why = child.failure[1] if child.failure else how
            text = "A process ended; it is started again."
            log.error(text, child=child.name, pid=child.pid, why=why, after_s=round(pause_s, 1))
            self._family.start_due([slot])

    def _on_reloaded(self, outcome: Outcome) -> None:
        if not self._stopped_by:
            self._report_status(ready=True)
        self.reloaded(outcome)

    # -- what is due ----------------------------------------------------------------------------

    def _look_at_clock(self) -> None:
        now_s = self._now_s()
        if self._kill_at_s is not None and now_s >= self._kill_at_s:
            log.warning("Killed what would not end.", processes=len(self._family.children))
            self._kill_at_s = None
            self._family.signal(signal.SIGKILL)
        if self._served and not self._stopped_by:
            self._family.start_due(self._family.slots)
            if now_s - self._reported_s >= STATUS_EVERY_S:
                self._report_status()
        self._family.kill_hung()
        watchdog_s = self._notifier.watchdog_s
        if watchdog_s is not None and now_s - self._alive_s >= watchdog_s:
            self._alive_s = now_s
            self._notifier.alive()

    def _timeout_s(self) -> float:
        """The time until the next thing is due."""
        now_s = self._now_s()
        due_s = [slot.due_s for slot in self._family.slots if slot.due_s is not None]
        if self._kill_at_s is not None:
            due_s.append(self._kill_at_s)
        if self._notifier.watchdog_s is not None:
            due_s.append(self._alive_s + self._notifier.watchdog_s)
        return max(0.0, min([now_s + STATUS_EVERY_S, *due_s]) - now_s)

    def _report_status(self, *, ready: bool = False) -> None:
        self._reported_s = self._now_s()
        slots = self._family.workers
        serving = sum(slot.child is not None and slot.child.ready_s is not None for slot in slots)
        streams = sum(child.streams for child in self._family.children.values())
        text = f"{serving} of {len(slots)} workers serve {streams} streams."
        if ready:
            self._notifier.ready(text)
        elif text != self._status:
            self._notifier.status(text)
        self._status = text

    # -- the end --------------------------------------------------------------------------------

    def _stop(self, number: int) -> None:
        """Drains the workers. The hub serves them until the last one ended."""
        self._stopped_by = number
        self._reload.forget()
        self._notifier.stopping()
        self._kill_at_s = self._now_s() + self._crew.window_s + END_GRACE_S
        for child in self._family.others():
            child.link.send(DRAIN)
        self._end_hub_if_last()

    def _end_at_once(self, number: int) -> None:
        """Ends everything at once, after a second signal or a failed start."""
        self._stopped_by = number
        self._ends_at_once = True
        self._kill_at_s = self._now_s() + AT_ONCE_S
        for child in self._family.others():
            child.link.send(END)
        self._end_hub_if_last()

    def _end_hub_if_last(self) -> None:
        hub = self._family.hub
        if (
            hub is not None
            and hub.child is not None
            and list(self._family.children) == [hub.child.pid]
        ):
            os.kill(hub.child.pid, signal.SIGTERM)
