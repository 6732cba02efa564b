"""Limits of the server that other parts calculate with: plain numbers, no behaviour."""

from typing import Final

__all__ = [
    "BACKLOG",
    "RESERVE_MIN",
    "STREAMS_DEFAULT_MAX",
    "TRIAL_TOPICS",
    "reserved_descriptors",
]

#: Streams of a process without `max_connections`. The descriptor limit of a container may be 2**30,
#: which is not a choice of so many streams.
STREAMS_DEFAULT_MAX: Final = 1_000_000
#: The fewest descriptors that streams never use.
RESERVE_MIN: Final = 256
#: Connections that wait to be accepted. The kernel caps it at net.core.somaxconn.
BACKLOG: Final = 65_535
#: The topics that `fastsse doctor --url` publishes to begin with this.
TRIAL_TOPICS: Final = "fastsse-doctor/"


def reserved_descriptors(limit: int) -> int:
    """Descriptors that streams never use: 1 % of the limit, at least 256, at most half."""
    return min(max(RESERVE_MIN, limit // 100), limit // 2)
