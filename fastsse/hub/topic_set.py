"""Sets of topics by their numbers: as a set while they are few, as bits when they are many.

A template may match a million topics, and clients may bring thousands of such templates. A bit
for each topic bounds the cost of a template, however many topics it matches.
"""

from collections.abc import Iterable
from typing import Final

__all__ = ["TopicSet", "united"]

# Bits take the place of a set that would cost more: about 64 bytes a number, and never of one of
# fewer numbers than this.
_FEW: Final = 64
_BITS_A_NUMBER: Final = 512
_BITS_OF: Final = tuple(tuple(bit for bit in range(8) if byte >> bit & 1) for byte in range(256))


class TopicSet:
    """A set of numbers that lie close together. Adding, discarding and looking are O(1)."""

    __slots__ = ("_bits", "_few", "count", "highest")

    def __init__(self) -> None:
        self.count = 0
        self.highest = 0
        self._few: set[int] | None = set()
        self._bits = bytearray()

    def __contains__(self, number: int) -> bool:
        if self._few is not None:
            return number in self._few
        at = number >> 3
        return at < len(self._bits) and bool(self._bits[at] >> (number & 7) & 1)

    def add(self, number: int) -> None:
        """Has it hold a number, which it may do already."""
        if number in self:
            return
        self.count += 1
        if number > self.highest:
            self.highest = number
        if self._few is None:
            self._set(number)
            return
        self._few.add(number)
        if self.count > _FEW and self.count * _BITS_A_NUMBER > self.highest:
            few, self._few = self._few, None
            for one in few:
                self._set(one)

    def discard(self, number: int) -> bool:
        """Removes a number; False when it does not hold it."""
        if number not in self:
            return False
        self.count -= 1
        if self._few is not None:
            self._few.discard(number)
        else:
            self._bits[number >> 3] &= ~(1 << (number & 7))
        return True

    def add_to(self, few: set[int]) -> int:
        """Adds its numbers to a set, or gives them as the bits of a number."""
        if self._few is None:
            return int.from_bytes(self._bits, "little")
        few |= self._few
        return 0

    def _set(self, number: int) -> None:
        at, bits = number >> 3, self._bits
        if at >= len(bits):
            bits.extend(bytes(at + 1 - len(bits)))
        bits[at] |= 1 << (number & 7)


def united(sets: Iterable[TopicSet], named: Iterable[int] = ()) -> list[int]:
    """The numbers of all sets and the others, each once. O(highest number / 8 for each set that is
    large, and numbers)."""
    few = set(named)
    whole = 0
    for one in sets:
        whole |= one.add_to(few)
    if whole:
        packed = whole.to_bytes((whole.bit_length() + 7) // 8, "little")
        few.update(
            [at << 3 | bit for at, byte in enumerate(packed) if byte for bit in _BITS_OF[byte]]
        )
    return list(few)
