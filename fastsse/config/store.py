"""Where events are stored, what an acknowledgement means, and how nodes share a log in Redis."""

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator

from fastsse.config.kinds import (
    MASK,
    Bytes,
    Choice,
    Count,
    OptionGroup,
    Seconds,
    ValueKind,
    duration,
    option,
    size,
)
from fastsse.config.redis_url import check_redis_url

__all__ = ["MEMORY", "Ack", "RedisOptions", "StoreOptions"]

MEMORY: Final = "memory"
SQLITE: Final = "sqlite:"
_PATH_BYTES_MAX: Final = 4_000


def check_store(store: str) -> str:
    """`memory`, `sqlite:PATH`, or a URL that Redis clients know."""
    if store.lower() == MEMORY:
        return MEMORY
    if store.startswith(SQLITE):
        return SQLITE + _check_path(store.removeprefix(SQLITE))
    return check_redis_url(store)


def _check_path(path: str) -> str:
    # What SQLite itself would take for a database in memory is not meant by anyone who asks for
    # a file.
    if not path.strip():
        raise ValueError("the path behind sqlite: is missing")
    if "\0" in path or len(path.encode()) > _PATH_BYTES_MAX:
        raise ValueError("must be a path")
    if path == ":memory:" or path.endswith("/"):
        raise ValueError("must be a file's path")
    return path


def show_store(store: str) -> str:
    """The store, without a password, which may also stand in the query."""
    if store.startswith(SQLITE):
        return store
    # Not taken apart as a URL: this shows wrong ones too.
    mark = "://" if "://" in store else ":"
    scheme, mark, rest = store.partition(mark)
    before, at, place = rest.rpartition("@")
    user = f"{before.partition(':')[0]}:{MASK}@" if at else ""
    place, asks, _ = place.partition("?")
    return f"{scheme}{mark}{user}{place}" + (f"?{MASK}" if asks else "")


STORE = ValueKind(
    "STORE", "memory, sqlite:PATH, or a redis://, rediss:// or unix:// URL", show_store
)

Store = Annotated[str, AfterValidator(check_store), STORE]
Ack = Annotated[Literal["received", "written", "synced"], Choice]


class StoreOptions(OptionGroup):
    """Where events are stored beside memory."""

    title = "Store"

    store: Store = option(
        MEMORY, "Where history is kept: in memory, in a file, or in a Redis that nodes share."
    )
    ack: Ack = option(
        "written",
        "What a 200 means with a sqlite store: the event is held in memory, survives a killed "
        "process, or survives a crashed machine.",
    )
    store_total: Bytes = size(
        "16GiB",
        "Bytes of all topics kept in a sqlite store, the oldest go first; 0: no bound. What is "
        "kept in memory beside it is history_total.",
        least="0B",
        most="1024TiB",
    )
    max_replays: Count = option(
        64,
        "Reads of the store for streams that resume, at once; others wait their turn.",
        ge=1,
        le=100_000,
    )

    @property
    def store_path(self) -> str | None:
        """The file of a sqlite store; None for another."""
        return self.store.removeprefix(SQLITE) if self.store.startswith(SQLITE) else None


_STREAM = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)
STREAM = ValueKind("NAME", "1 to 64 letters, digits or ._:-")


def check_stream(name: str) -> str:
    """A name that can stand in braces in other keys."""
    if not _STREAM.fullmatch(name):
        raise ValueError("must be a name")
    return name


class RedisOptions(OptionGroup):
    """Nodes that share a log in Redis (`store`)."""

    title = "Redis"

    redis_stream: Annotated[str, AfterValidator(check_stream), STREAM] = option(
        "fastsse", "Name of the log; nodes with the same one are one service."
    )
    redis_events: Count = option(
        100_000,
        "Events of all topics that nodes can catch up on, and that templates and * can resume "
        "from; exact topics keep what history_events and history_age say.",
        ge=100,
        le=1_000_000_000,
    )
    redis_wait: Count = option(
        0, "Replicas that must have an event before it is acknowledged.", ge=0, le=100
    )
    redis_timeout: Seconds = duration(
        "5s",
        "Time for an answer of Redis; a publish without one is refused then.",
        least="100ms",
        most="1m",
    )
    redis_node_timeout: Seconds = duration(
        "8s",
        "A node that Redis has heard nothing of for so long is taken for dead: its subscribers "
        "leave the lists, and what its clients hold of their limits is given back.",
        least="500ms",
        most="10m",
    )
    redis_start: Seconds = duration(
        "30s", "How long a start waits for a Redis that is away.", least="0s", most="1h"
    )
