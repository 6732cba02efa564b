"""Which subscriptions a stream belongs to."""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from fastsse.streamstate import StreamRow
from fastsse.wakes.subscription import Subscription

__all__ = ["StreamIndex", "StreamRowsHere"]

# Streams whose subscriptions are cached.
_KNOWN_MAX: Final = 65_536


class StreamRowsHere(Protocol):
    """The rows of all streams.

    Attributes:
        on_changed: called with each stream that has changed, and its row; None: it is gone.
    """

    on_changed: Callable[[str, StreamRow | None], None] | None

    @property
    def rows(self) -> Mapping[str, StreamRow]:
        """The rows by topic."""


class StreamIndex:
    """Subscriptions, by id and by stream."""

    def __init__(self) -> None:
        self._by_id: Final[dict[str, Subscription]] = {}
        self._known: Final[dict[str, tuple[Subscription, ...]]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def all(self) -> list[Subscription]:
        """All subscriptions."""
        return list(self._by_id.values())

    def get(self, name: str) -> Subscription | None:
        """The subscription with an id."""
        return self._by_id.get(name)

    def add(self, one: Subscription) -> None:
        """Adds a subscription."""
        self._by_id[one.id] = one
        self._known.clear()

    def remove(self, one: Subscription) -> None:
        """Removes a subscription."""
        self._by_id.pop(one.id, None)
        self._known.clear()

    def of(self, topic: str) -> tuple[Subscription, ...]:
        """The subscriptions of a stream. O(1) if it is in the cache, else O(subscriptions)."""
        if not self._by_id:
            return ()
        found = self._known.get(topic)
        if found is None:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            found = self._known[topic] = tuple(
                one
                for one in self._by_id.values()
                if topic != one.config["wake_stream"]
                and (topic in one.links or (one.glob is not None and one.glob.fullmatch(topic)))
            )
        return found
