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
    Switch,
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
    if store and ":" not in store:
        raise ValueError(f"did you mean sqlite:{'history.db' if store == 'sqlite' else store}?")
    return check_redis_url(store)


def _check_path(path: str) -> str:
    # Names that SQLite treats as a database in memory are refused, because a file was requested.
    if not path.strip():
        raise ValueError("the path after sqlite: is missing")
    if "\0" in path or len(path.encode()) > _PATH_BYTES_MAX:
        raise ValueError("must be a path")
    if path == ":memory:" or path.endswith("/"):
        raise ValueError("must be a file's path")
    return path


def show_store(store: str) -> str:
    """The store without passwords, which may also be in the query."""
    if store.startswith(SQLITE):
        return store
    # Not parsed as a URL, because this shows invalid ones too.
    mark = "://" if "://" in store else ":"
    scheme, mark, rest = store.partition(mark)
    before, at, place = rest.rpartition("@")
    user = f"{before.partition(':')[0]}:{MASK}@" if at else ""
    place, asks, _ = place.partition("?")
    return f"{scheme}{mark}{user}{place}" + (f"?{MASK}" if asks else "")


STORE = ValueKind(
    "STORE", "memory, sqlite:PATH, redis://, rediss://, unix:// or redis+sentinel://…", show_store
)

Store = Annotated[str, AfterValidator(check_store), STORE]
Ack = Annotated[Literal["received", "written", "synced"], Choice]


class StoreOptions(OptionGroup):
    """Where events are stored."""

    title = "Store"

    store: Store = option(
        MEMORY, "Where history is stored: in memory, in a file, or in a Redis that nodes share."
    )
    ack: Ack = option(
        "written",
        "When a publish is answered with 200, with a sqlite store: after the event is in memory, "
        "after it survives a killed process, or after it survives a crashed machine.",
    )
    store_total: Bytes = size(
        "16GiB",
        "Bytes of all topics in a sqlite store, the oldest are evicted first; 0: no bound. "
        "history_total bounds the copy in memory.",
        least="0B",
        most="1024TiB",
    )
    max_replays: Count = option(
        64,
        "Concurrent reads of the store for streams that resume; others wait, first in first out.",
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
    """A name that can be put in braces in other keys."""
    if not _STREAM.fullmatch(name):
        raise ValueError("must be a name")
    return name


class RedisOptions(OptionGroup):
    """Nodes that share a log in Redis (`store`)."""

    title = "Redis"

    redis_stream: Annotated[str, AfterValidator(check_stream), STREAM] = option(
        "fastsse", "Name of the log; nodes with the same name are one service."
    )
    redis_may_evict: Switch = option(
        False,
        "Start with a Redis that may evict keys (maxmemory with a policy other than noeviction). "
        "What it evicts is lost, and reported as gaps.",
    )
    redis_events: Count = option(
        100_000,
        "Events of all topics from which nodes catch up, and from which templates and * resume; "
        "history_events and history_age apply to exact topics.",
        ge=100,
        le=1_000_000_000,
    )
    redis_wait: Count = option(
        0, "Number of replicas that must store an event before it is acknowledged.", ge=0, le=100
    )
    redis_timeout: Seconds = duration(
        "5s",
        "Timeout of Redis commands; a publish without an answer is refused.",
        least="100ms",
        most="1m",
    )
    redis_node_timeout: Seconds = duration(
        "8s",
        "A node that has not reported to Redis for this long is considered dead: its subscribers "
        "are removed from presence, and the usage of its clients is released.",
        least="500ms",
        most="10m",
    )
    redis_start: Seconds = duration(
        "30s", "How long a start waits for Redis.", least="0s", most="1h"
    )
