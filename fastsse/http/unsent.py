"""Answers that their clients do not read.

A client that does not read its answer leaves it in memory until a deadline. All such answers
together are bounded: above the bound, the connection that waits longest is closed.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fastsse.http.connection import Connection

__all__ = ["UNSENT_BYTES_MAX", "UnsentAnswers"]

UNSENT_BYTES_MAX: Final = 256 * 1024 * 1024


class UnsentAnswers:
    """The connections of a listener whose clients read too slowly. Loop thread only.

    Arguments:
        on_evicted: called with each connection that is closed for others, before that.
        bytes_max: of all answers together.

    Attributes:
        bytes: of all answers; what several answers share counts once.
    """

    __slots__ = ("_held", "_max", "_on_evicted", "_uses", "bytes")

    def __init__(
        self, on_evicted: "Callable[[Connection], None]", bytes_max: int = UNSENT_BYTES_MAX
    ) -> None:
        self.bytes = 0
        self._on_evicted = on_evicted
        self._max = bytes_max
        # The one that waits longest is first.
        self._held: dict[Connection, tuple[int, Sequence[bytes]]] = {}
        self._uses: Counter[int] = Counter()  # Of what is shared, by its identity.

    def add(self, connection: "Connection", size_bytes: int, shared: Sequence[bytes]) -> None:
        """A connection has so many unsent bytes, some of them shared. O(pieces), amortized."""
        self.drop(connection)
        own_bytes = max(0, size_bytes - sum(map(len, shared)))
        self._held[connection] = own_bytes, shared
        self.bytes += own_bytes
        for piece in shared:
            self._uses[id(piece)] += 1
            if self._uses[id(piece)] == 1:
                self.bytes += len(piece)
        while self.bytes > self._max and len(self._held) > 1:
            oldest = next(iter(self._held))
            self.drop(oldest)
            self._on_evicted(oldest)
            oldest.abort()

    def drop(self, connection: "Connection") -> None:
        """A connection has sent its answers, or is closed. O(pieces)."""
        own_bytes, shared = self._held.pop(connection, (0, ()))
        self.bytes -= own_bytes
        for piece in shared:
            self._uses[id(piece)] -= 1
            if not self._uses[id(piece)]:
                del self._uses[id(piece)]
                self.bytes -= len(piece)
