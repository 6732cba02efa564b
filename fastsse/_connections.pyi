"""The native part of `hub/connections.py`. Loop thread only."""

from collections.abc import Callable, Container
from typing import final

ROW_BYTES: int

@final
class ConnectionRows:
    """What is known of open streams, by slot of the connection table: ROW_BYTES for each slot that
    was ever used.

    Arguments:
        capacity: slots.

    Raises MemoryError.
    """

    capacity: int
    used: int

    def __init__(self, capacity: int) -> None: ...
    def put(
        self,
        handle: int,
        channel: int,
        opened_ds: int,
        agent: int,
        address: bytes,
        port: int,
        subject_hash: int,
        subject: bytes,
        is_uuid: bool = False,
    ) -> None:
        """Keeps a row. `address` has 0, 4 or 16 bytes; it and the subject share 32, so the end of a
        long subject is cut off. O(1). Raises ValueError for another address, or no such slot."""

    def drop(self, handle: int) -> int | None:
        """Forgets a row, and returns its agent; None when there is none. O(1)."""

    def get(self, handle: int) -> tuple[int, int, int, bytes, int, bytes, bool, bool] | None:
        """channel, opened_ds, agent, address, port, the kept part of the subject, whether that is a
        UUID, and whether it was cut off. O(1)."""

    def scan(
        self,
        first: int,
        slots: int,
        limit: int,
        judge: Callable[[int], bool] | None,
        verdicts: bytearray,
        subject_hash: int,
        prefix: bytes,
        prefix_bits: int,
        agents: Container[int] | None,
    ) -> tuple[list[int], int]:
        """Handles of rows that match all conditions, in the order of slots.

        Looks at most at `slots` slots from `first` on, and asks `judge` about at most 2,000
        channels; `verdicts` remembers its answers from call to call. Returns also the slot to go on
        from, `capacity` after the last.
        """
