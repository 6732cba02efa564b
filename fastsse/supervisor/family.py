"""The child processes: forking, listening to, and burying them."""

import os
import selectors
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from fastsse.log import get_logger
from fastsse.supervisor.children import Child, Slot, how_it_ended
from fastsse.supervisor.forking import Closable, fork
from fastsse.supervisor.process_link import ALIVE, FAILED, READY, ProcessLink

__all__ = ["Family", "ProcessPlan"]

log = get_logger("supervisor")
# A child that serves says so once a second. One that stands still so long never will again.
HUNG_S = 60.0


class ProcessPlan(Protocol):
    """What the children do, and what a reload changes."""

    @property
    def window_s(self) -> float:
        """Over how long streams are ended on a stop, s."""

    def serve(self, slot: int, number: int, link: ProcessLink) -> int:
        """A child's life, called in it; the hub's slot is -1. Returns its exit status.

        It says READY when it serves, ALIVE once a second from then on, FAILED when it can't; it
        does what DRAIN, REPLACED and END want, and ends when the link does.
        """

    def on_serving(self) -> None:
        """All serve for the first time."""

    def reload(self) -> str:
        """Reads and checks the configuration again; children that start from now on have it.

        Returns the message for the user. Raises FastsseError, and then all is as it was.
        """

    def revert(self) -> None:
        """Undoes the last `reload`: with it no worker could start."""

    def left_by_child(self) -> Sequence[Closable]:
        """What a child must close."""


class Family:
    """A hub's slot, unless there is none, and one for each worker; and all children alive.

    Arguments:
        crew: what children do.
        workers: how many slots for workers.
        with_hub: whether there is one for a hub.
        selector: where links are watched; a key's data is called when it is readable.
        now_s: a monotonic clock.

    Attributes:
        on_ready, on_end: called with a child that serves, or ended (and how, in words).
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
        self._numbers = 0

    @property
    def slots(self) -> list[Slot]:
        """All, the hub's first."""
        return [self.hub, *self.workers] if self.hub is not None else self.workers

    def slot_of(self, child: Child) -> Slot | None:
        """The slot that a child fills or is to fill; None when it has left it."""
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
        # The hub serves workers that end with the supervisor, and ends after them.
        dies_with_us = slot is not self.hub
        pid, link = fork(f"fastsse {slot.name}", run, left, dies_with_us=dies_with_us)
        child = Child(slot.name, number, pid, link, self._now_s())
        self.children[pid] = child
        self._selector.register(link, selectors.EVENT_READ, lambda: self._hear(child))
        return child

    def start_due(self, slots: Sequence[Slot]) -> None:
        """Fills those of the slots that are to be filled by now."""
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
        """Takes note of every child that ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            # As process 1 of a container we are given orphans that are not ours.
            child = self.children.pop(pid, None)
            if child is not None:
                if child.link.fileno() >= 0:
                    self._hear(child)  # Its last words.
                self._unhear(child)
                self.on_end(child, how_it_ended(os.waitstatus_to_exitcode(status)))

    def kill_hung(self) -> None:
        """Ends children that stand still: a loop that never comes round, a stopped process."""
        now_s = self._now_s()
        for child in self.children.values():
            if child.ready_s is not None and now_s - child.heard_s > HUNG_S:
                log.error("A process stands still; it is killed.", child=child.name)
                child.heard_s = now_s
                os.kill(child.pid, signal.SIGKILL)

    def signal(self, number: int) -> None:
        """To every child. None was waited for, so each number is still its own."""
        for pid in self.children:
            os.kill(pid, number)

    def bury(self) -> None:
        """Kills what is left and waits for it."""
        self.signal(signal.SIGKILL)
        for child in self.children.values():
            os.waitpid(child.pid, 0)
            self._unhear(child)
        self.children.clear()

    def _hear(self, child: Child) -> None:
        while (packet := child.link.hear()) is not None:
            child.heard_s = self._now_s()
            if packet.word == READY:
                child.ready_s = child.heard_s
                self.on_ready(child)
            elif packet.word == ALIVE:
                child.streams = int(packet.text)
            elif packet.word == FAILED:
                status, _, text = packet.text.partition(" ")
                child.failure = int(status), text
        if not child.link.is_open:
            self._unhear(child)

    def _unhear(self, child: Child) -> None:
        if child.link.fileno() >= 0:
            self._selector.unregister(child.link)
            child.link.close()
