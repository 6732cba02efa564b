"""A reload: processes take topic rules over, and for other options workers are replaced one after
another. Each successor serves before the old one ends."""

from collections import deque
from collections.abc import Callable

from fastsse.errors import FastsseError
from fastsse.log import get_logger
from fastsse.supervisor.children import Child, Slot
from fastsse.supervisor.family import Family, ProcessPlan
from fastsse.supervisor.process_link import REPLACED
from fastsse.supervisor.reloadsocket import Outcome

__all__ = ["Reload"]

log = get_logger("supervisor")


class Reload:
    """Brings a new configuration to a family on request.

    What all processes can take over, they take over first. Then, if other options changed, a slot's
    old worker is asked to leave when its successor listens on the same sockets, and the next slot
    has its turn. If a successor can't start, the present workers and the old configuration stay.

    Arguments:
        over: called with the result of each reload.
    """

    def __init__(self, crew: ProcessPlan, family: Family, over: Callable[[Outcome], None]) -> None:
        self._crew = crew
        self._family = family
        self._over = over
        # Children that have not taken over yet what is posted.
        self._taking: set[Child] = set()
        self._left: deque[Slot] | None = None
        self._replaced = 0
        self._note = ""
        self._again = False

    @property
    def is_under_way(self) -> bool:
        """Whether some processes still must take it over, or be replaced."""
        return self._left is not None or bool(self._taking)

    def begin(self) -> None:
        """Starts a reload; during a reload, another one follows it."""
        if self.is_under_way:
            self._again = True
            return
        try:
            plan = self._crew.reload()
        except FastsseError as error:
            log.error("Reload refused; all is as it was.", reason=str(error))
            self._end(Outcome(False, str(error)))
            return
        self._note = plan.note
        self._left = deque(self._family.workers if plan.replaces else ())
        self._replaced = len(self._left)
        if plan.is_posted:
            self._taking = self._family.apply()
        if not self._taking:
            self._go_on()

    def on_applied(self, child: Child) -> None:
        """A child has taken the configuration over, or ended."""
        if child not in self._taking:
            return
        self._taking.remove(child)
        if not self._taking:
            if self._left is not None:
                self._go_on()
            else:
                self._begin_again()

    def on_ready(self, slot: Slot) -> None:
        """The successor of a slot's worker listens, so the old one no longer needs to."""
        old, slot.child, slot.newcomer, slot.due_s = slot.child, slot.newcomer, None, None
        if old is not None:
            old.leaving = True
            old.link.send(REPLACED)
        self._go_on()

    def on_end(self, slot: Slot, child: Child, how: str) -> None:
        """A successor could not start."""
        slot.newcomer = None
        self._give_up(child.failure[1] if child.failure else f"It ended with {how}.")

    def forget(self) -> None:
        """The service stops: no worker is replaced any more."""
        if self._left is not None:
            self._left, self._again = None, False
            self._over(Outcome(False, "The service stops."))

    def _go_on(self) -> None:
        if not self._left:
            self._left = None
            count, text = self._replaced, "Reloaded."
            if count:
                text = f"Reloaded: {count} worker{'s' if count > 1 else ''} replaced."
            log.info(text, note=self._note)
            self._end(Outcome(True, f"{text} {self._note}".rstrip()))
            return
        slot = self._left.popleft()
        try:
            slot.newcomer = self._family.start(slot)
        except OSError as error:
            self._give_up(f"No process can be started: {error.strerror}.")

    def _give_up(self, reason: str) -> None:
        left = len(self._left or ()) + 1
        self._left = None
        if self._crew.revert():
            self._taking = self._family.apply()
        log.error(
            "Reload given up: a new worker could not start.", reason=reason, not_replaced=left
        )
        self._end(Outcome(False, f"A new worker can't start. {reason}"))

    def _end(self, outcome: Outcome) -> None:
        self._over(outcome)
        self._begin_again()

    def _begin_again(self) -> None:
        if self._again and not self.is_under_way:
            self._again = False
            self.begin()
