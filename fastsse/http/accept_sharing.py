"""Which listening sockets a worker accepts from: its own, and those of workers without room.

All workers of a service hold all its sockets. One without room stops watching its own when it
knows that another has room, and the one that is told to help watches it too; connects wait in the
kernel meanwhile. When nobody has room each watches its own again, and tells its newcomers when to
come back.

Where all accept from one socket the kernel wakes whom it likes. There a worker with clearly more
streams than the mean stays away for a second, so that they even out.
"""

import socket
from collections.abc import Callable, Sequence
from typing import Final

from fastsse.control.stats import Help
from fastsse.http.listeners import Listener

__all__ = ["AcceptSharing"]


class AcceptSharing:
    """The doors of one worker. Loop thread only.

    Arguments:
        listener: accepts.
        sockets: of each slot; a slot's sockets may be another one's too.
        slot: this worker's.
        number: what helpers are called by.
        room: how many streams can still be taken.
        on_full: called when there is no room any more.
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
        #: Whether its sockets are another's too.
        self.is_shared = any(sock in one for one in others for sock in sockets[slot])
        self._on_full = on_full
        # Until it is told better, whoever is full waits for the control service.
        self._help = Help({}, is_room=True)
        self._is_full = False
        self._is_closed = False

    def look(self) -> None:
        """To be called after each newcomer and once a second: is there room? O(1) while that
        stays as it was."""
        is_full = self._room() <= 0
        if is_full != self._is_full:
            self._is_full = is_full
            self._watch()
            if is_full:
                self._on_full()

    def on_help(self, help: Help) -> None:
        """Who accepts for whom has changed."""
        self._help = help
        self._watch()

    def close(self) -> None:
        """Watches nothing any more."""
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
