"""Losses of the log, and which workers must still be notified of them.

A worker is notified over its link. The link may be down, or may break before the message arrives.
So the hub process remembers the losses that each worker may not know, and sends them again on its
next link.
"""

from collections import OrderedDict
from typing import Final

__all__ = ["Losses"]

# Worker processes, ended ones included: a worker reconnects within seconds, or ends.
WORKERS_MAX: Final = 4 * 1024


class Losses:
    """The place up to which entries may be missing, for each worker. Loop thread only.

    Attributes:
        through: the place of the last loss of the log; 0 when there was none.
    """

    def __init__(self) -> None:
        self.through = 0
        # By worker: the place to notify it of, and the end of the log that it had when it
        # was notified, 0 before.
        self._by_worker: OrderedDict[bytes, tuple[int, int]] = OrderedDict()

    def happened(self, place: int) -> None:
        """The log lost something up to a place: all workers must be notified."""
        self.through = max(self.through, place)

    def owe(self, key: bytes, place: int) -> None:
        """One worker must be notified of a place."""
        known, was_notified = self._by_worker.get(key, (0, 0))
        self._set(key, (place if was_notified else max(known, place), 0))

    def said(self, key: bytes, place: int, head: int) -> None:
        """A worker was notified of a place, after the log up to `head`."""
        self._set(key, (place, max(place, head)))

    def owed(self, key: bytes, head: int) -> int:
        """The place to notify a worker of now, 0 for none. `head` is the end of the log that it
        has. If that is higher than at the notification, it has received it."""
        place, notified_at = self._by_worker.get(key, (0, 0))
        own = place if not notified_at or head <= notified_at else 0
        return max(own, self.through if head <= self.through else 0)

    def _set(self, key: bytes, owed: tuple[int, int]) -> None:
        self._by_worker[key] = owed
        self._by_worker.move_to_end(key)
        if len(self._by_worker) > WORKERS_MAX:
            self._by_worker.popitem(last=False)
