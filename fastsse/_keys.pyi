"""Publishers' keys in memory, without an object for each. Loop thread only."""

import builtins
from collections.abc import Callable, Sequence

KEY_COST_BYTES: int
POSITION_COST_BYTES: int
#: Keys that `KeyRows.add_new` takes at once.
NEW_KEYS_MAX: int

class KeyRows:
    """The rows of `backbone.keys.KeyTable`, whose arguments these are.

    Attributes:
        bytes: what they count for.
    """

    def __init__(self, window_ms: int, total_bytes: int, now_ms: Callable[[], int]) -> None: ...
    @property
    def bytes(self) -> int: ...
    def __len__(self) -> int: ...
    def find_row(self, key: builtins.bytes) -> tuple[builtins.bytes, Sequence[int]] | None:
        """The digest and the positions of a key that is known now. O(1)."""

    def has_room(self, size_bytes: int) -> bool:
        """As `backbone.keys.Keys`. O(keys that are too old)."""

    def add_row(
        self,
        key: builtins.bytes,
        digest: builtins.bytes,
        positions: Sequence[int],
        time_ms: int | None = None,
    ) -> None:
        """Remembers a key, used at a time, now by default. O(1)."""

    def add_new(
        self,
        keys: list[builtins.bytes | None],
        digests: list[builtins.bytes] | list[builtins.bytes | None],
        append: Callable[[], Sequence[int]],
    ) -> Sequence[int] | None:
        """Appends events and remembers their keys, if none is known, in the table or twice among
        them, and all have room; else changes nothing and returns None. O(keys).

        Arguments:
            keys: of each event, at most NEW_KEYS_MAX, else None is returned; None: it has none.
            digests: of the request of each that has a key; the others are ignored.
            append: appends all events and returns their positions.
        """
