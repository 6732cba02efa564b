"""Where events are stored, and what an acknowledgement means."""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator

from fastsse.config.groups import OptionGroup, option, size
from fastsse.config.kinds import MASK, Bytes, Choice, Count, Kind
from fastsse.config.redis_url import check_redis_url

__all__ = ["MEMORY", "Ack", "StoreOptions"]

MEMORY: Final = "memory"
SQLITE: Final = "sqlite:"
_PATH_MAX_BYTES: Final = 4_000


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
    if "\0" in path or len(path.encode()) > _PATH_MAX_BYTES:
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


STORE = Kind("STORE", "memory, sqlite:PATH, or a redis://, rediss:// or unix:// URL", show_store)

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
