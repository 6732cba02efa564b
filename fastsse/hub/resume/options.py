"""The options of replays, as streams and the replayer take them."""

from dataclasses import dataclass

from fastsse.hub.history import PAGE_BYTES

__all__ = ["ReplayBounds", "ReplayOptions"]


@dataclass(frozen=True, slots=True)
class ReplayBounds:
    """Bounds of reading history.

    Arguments:
        page_bytes: the bound on one page of a replay.
        max_replays: the bound on concurrent reads of the backbone; others wait in a queue.
    """

    page_bytes: int = PAGE_BYTES
    max_replays: int = 64


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """How streams open and replay.

    Arguments:
        retry_ms: the reconnection time that streams open with.
        clean_end: whether an incomplete response ends with a last chunk, as a complete one does.
        memory_bytes: while the core holds more than this outside the history, replays wait for
            their next page. So a stream that catches up never delays publishers.
        bounds: of reading history.
    """

    retry_ms: int
    clean_end: bool
    memory_bytes: int
    bounds: ReplayBounds = ReplayBounds()
