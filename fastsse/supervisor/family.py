"""The child processes: starts them, reads their messages, and collects their exit statuses."""

import os
import selectors
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from fastsse.log import get_logger
from fastsse.supervisor.children import Child, Slot, how_it_ended
from fastsse.supervisor.forking import Closable, fork
from fastsse.supervisor.process_link import ALIVE, APPLIED, APPLY, FAILED, READY, ProcessLink

__all__ = ["Family", "Plan", "ProcessPlan"]

log = get_logger("supervisor")
# A child that serves reports it once a second. After this silence it counts as stuck.
HUNG_S = 60.0


class Plan(NamedTuple):
    """What a new configuration asks for, and the message for the user.

    `is_posted`: children that run take it over when they get the order APPLY. `replaces`: workers
    are replaced.
    """

    note: str
    is_posted: bool = False
    replaces: bool = True


class ProcessPlan(Protocol):
    """What the children do, and what a reload changes."""

    @property
    def window_s(self) -> float:
        """The time over which a stop ends the streams, s."""

    def serve(self, slot: int, number: int, link: ProcessLink) -> int:
        """Runs a child;

        called in the child process. The hub's slot is -1. Returns the exit status. The child sends
        READY when it serves, then ALIVE once a second, or FAILED if it can't start. It obeys DRAIN,
        REPLACED and END, and ends when the link ends.
        """

    def on_serving(self) -> None:
        """All serve for the first time."""

    def reload(self) -> Plan:
        """Reads and checks the configuration again; children that start from now on have it.

        Raises FastsseError; then nothing has changed.
        """

    def revert(self) -> bool:
        """Undoes the last `reload`, because no worker could start with it; whether children that
        run must take over what it was before."""

    def left_by_child(self) -> Sequence[Closable]:
        """What a child must close."""


class Family:
    """The slots of the hub (if there is one) and of each worker, and all living children.

    Arguments:
        crew: what children do.
        workers: the number of slots for workers.
        with_hub: whether there is a slot for a hub.
        selector: watches the links; a key's data is called when it is readable.
        now_s: a monotonic clock.

    Attributes:
        on_ready, on_end: called with a child that serves, or with one that ended and how, in words.
        on_applied: called with a child that has taken a configuration over.
    """

    def __init__(
        self,
        crew: ProcessPlan,
        workers: int,
        with_hub: bool,
        selector: selectors.BaseSelector,
        now_s: Callable[[], float],
    ) -> None:
        self.hub = Slot("hub", -1) if with_hub else None
        self.workers = [Slot(f"worker {index}", index) for index in range(workers)]
        self.children: dict[int, Child] = {}
        self._crew = crew
        self._selector = selector
        self._now_s = now_s
        self.on_ready: Callable[[Child], None] = lambda child: None
        self.on_end: Callable[[Child, str], None] = lambda child, how: None
        self.on_applied: Callable[[Child], None] = lambda child: None
        self._numbers = 0

    @property
    def slots(self) -> list[Slot]:
        """All slots, the hub's first."""
        return [self.hub, *self.workers] if self.hub is not None else self.workers

    def slot_of(self, child: Child) -> Slot | None:
        """The slot of a child that serves or starts; None if it has left its slot."""
        return next((one for one in self.slots if child in (one.child, one.newcomer)), None)

    def all_serve(self) -> bool:
        """Whether every slot is filled."""
        return all(slot.child and slot.child.ready_s is not None for slot in self.slots)

    def others(self) -> Iterator[Child]:
        """The children that are not the hub."""
        hub = self.hub.child if self.hub is not None else None
        return (child for child in self.children.values() if child is not hub)

    def start(self, slot: Slot) -> Child:
        """Forks a child for a slot. Raises OSError when there can be no more processes."""
        number = self._numbers
        self._numbers += 1

        def run(link: ProcessLink) -> int:
            return self._crew.serve(slot.index, number, link)

        left = [*(child.link for child in self.children.values()), *self._crew.left_by_child()]
        # The hub does not end with the supervisor: it serves the workers, which do, and ends after
        # them.
        dies_with_us = slot is not self.hub
        pid, link = fork(f"fastsse {slot.name}", run, left, dies_with_us=dies_with_us)
        child = Child(slot.name, number, pid, link, self._now_s())
        self.children[pid] = child
        self._selector.register(link, selectors.EVENT_READ, lambda: self._read_packets(child))
        return child

    def apply(self) -> set[Child]:
        """Has all children take the posted configuration over; returns those that report it. A
        child that starts now has it already, but one that began to start before may not."""
        for child in self.children.values():
            child.link.send(APPLY)
        return {child for child in self.children.values() if not child.leaving}

    def start_due(self, slots: Sequence[Slot]) -> None:
        """Starts a child in each slot that is due."""
        now_s = self._now_s()
        for slot in slots:
            if slot.due_s is not None and slot.due_s <= now_s:
                slot.due_s = None
                try:
                    slot.child = self.start(slot)
                except OSError as error:
                    log.error("No process can be started.", reason=error.strerror)
                    slot.due_s = now_s + 1.0

    def reap(self) -> None:
        """Collects every child that ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            # As process 1 of a container this process also gets orphans of other programs.
            child = self.children.pop(pid, None)
            if child is not None:
                if child.link.fileno() >= 0:
                    self._read_packets(child)  # Its last messages.
                self._unhear(child)
                self.on_end(child, how_it_ended(os.waitstatus_to_exitcode(status)))

    def kill_hung(self) -> None:
        """Kills stuck children: a blocked event loop, or a stopped process."""
        now_s = self._now_s()
        for child in self.children.values():
            if child.ready_s is not None and now_s - child.last_message_s > HUNG_S:
                log.error("A process stands still; it is killed.", child=child.name)
                child.last_message_s = now_s
                os.kill(child.pid, signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Sends a signal to every child. None was collected yet, so no process id is reused."""
        for pid in self.children:
            os.kill(pid, number)

    def bury(self) -> None:
        """Kills the remaining children and waits for them."""
        self.signal(signal.SIGKILL)
        for child in self.children.values():
            os.waitpid(child.pid, 0)
            self._unhear(child)
        self.children.clear()

    def _read_packets(self, child: Child) -> None:
        while (packet := child.link.receive()) is not None:
            child.last_message_s = self._now_s()
            if packet.word == READY:
                child.ready_s = child.last_message_s
                self.on_ready(child)
            elif packet.word == ALIVE:
                child.streams = int(packet.text)
            elif packet.word == APPLIED:
                self.on_applied(child)
            elif packet.word == FAILED:
                status, _, text = packet.text.partition(" ")
                child.failure = int(status), text
        if not child.link.is_open:
            self._unhear(child)

    def _unhear(self, child: Child) -> None:
        if child.link.fileno() >= 0:
            self._selector.unregister(child.link)
            child.link.close()
