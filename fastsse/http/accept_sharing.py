"""Chooses the listening sockets that a worker accepts from: its own, and those of full workers.

Every worker of a service holds all listening sockets. A full worker stops watching its own socket
when it knows of a worker with room. The control service names a helper, and the helper watches that
socket too. Until then new connections wait in the kernel. When every worker is full, each watches
its own socket again and sends its new clients a retry time.

When all workers accept from one socket, the kernel chooses the worker that it wakes. Then a worker
with clearly more streams than the mean does not accept for a second, so that the counts converge.
"""

import socket
from collections.abc import Callable, Sequence
from typing import Final

from fastsse.control.stats import Help
from fastsse.http.listeners import Listener

__all__ = ["AcceptSharing"]


class AcceptSharing:
    """The listening sockets that one worker watches. Loop thread only.

    Arguments:
        listener: accepts.
        sockets: the sockets of each slot; several slots may share sockets.
        slot: the slot of this worker.
        number: the number of this worker, by which helpers are named.
        room: returns how many more streams fit.
        on_full: called when the worker becomes full.
    """

    def __init__(
        self,
        listener: Listener,
        sockets: Sequence[Sequence[socket.socket]],
        slot: int,
        number: int,
        room: Callable[[], int],
        on_full: Callable[[], None],
    ) -> None:
        self._listener: Final = listener
        self._sockets = sockets
        self._slot = slot
        self._number = number
        self._room = room
        others = [one for index, one in enumerate(sockets) if index != slot]
        #: Whether another slot has the same sockets.
        self.is_shared = any(sock in one for one in others for sock in sockets[slot])
        self._on_full = on_full
        # Until the first `Help` arrives, a full worker waits for the control service.
        self._help = Help({}, is_room=True)
        self._is_full = False
        self._is_closed = False

    def look(self) -> None:
        """Checks for room. Call it after each new connection and once a second. O(1) while the
        result does not change."""
        is_full = self._room() <= 0
        if is_full != self._is_full:
            self._is_full = is_full
            self._watch()
            if is_full:
                self._on_full()

    def on_help(self, help: Help) -> None:
        """Called when the assignment of helpers has changed."""
        self._help = help
        self._watch()

    def close(self) -> None:
        """Stops watching all sockets."""
        self._is_closed = True

    def _watch(self) -> None:
        if self._is_closed:
            return
        slots = []
        is_heavy = self.is_shared and self._number in self._help.heavy
        if not (is_heavy or (self._is_full and self._help.is_room)):
            slots.append(self._slot)
        if not self._is_full:
            slots += [slot for slot, number in self._help.helper.items() if number == self._number]
        watched = {id(sock): sock for slot in slots for sock in self._sockets[slot]}
        self._listener.watch(list(watched.values()))
