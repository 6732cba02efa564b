"""How many messages a source reads at once: fewer if they are large."""

from typing import Final

__all__ = ["ReadCount"]

# About the most bytes of one read. If messages are so large, they are read one by one.
READ_BYTES: Final = 4 * 1024 * 1024
COUNT_FIRST: Final = 10


class ReadCount:
    """The number of messages of the next read, by the size of those of the last one.

    Arguments:
        most: its bound.

    Attributes:
        value: the number.
    """

    def __init__(self, most: int) -> None:
        self._most: Final = most
        self.value = min(most, COUNT_FIRST)

    def note(self, count: int, size_bytes: int) -> None:
        """Notes how many were read, and their bytes."""
        if size_bytes > READ_BYTES:
            self.value = max(1, self.value // 2)
        elif count >= self.value:
            self.value = min(self._most, self.value * 2)
