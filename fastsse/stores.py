"""Opens the stores that the options name: the backbone, and the store of control services."""

from collections.abc import Callable
from typing import NamedTuple

from fastsse.backbone import Backbone
from fastsse.backbone.memory import MemoryBackbone
from fastsse.config import Config
from fastsse.config.store import MEMORY
from fastsse.control.service import ControlStore
from fastsse.positions import now_ms

__all__ = ["OpenedStores", "open_stores"]


class OpenedStores(NamedTuple):
    """A backbone, and the store of control services where their data survives a restart. The
    backbone's `close` ends both."""

    backbone: Backbone
    control_store: ControlStore | None


async def open_stores(config: Config, now_ms: Callable[[], int] = now_ms) -> OpenedStores:
    """Opens what `store` names, for a process that is the only one of its node to do so.

    Raises FastsseError if a store can't be opened; then nothing stays open.
    """
    path = config.store_path
    if path is not None:
        from fastsse.backbone.sqlite import SqliteBackbone

        sqlite = SqliteBackbone(path, config, config.ack, config.store_total, now_ms)
        return OpenedStores(sqlite, sqlite.control_store)
    if config.store == MEMORY:
        return OpenedStores(MemoryBackbone(now_ms), None)
    return await _open_redis(config)


async def _open_redis(config: Config) -> OpenedStores:
    """The log, and next to it what nodes share in the same Redis."""
    from fastsse.backbone.redis import open_redis
    from fastsse.cluster.store import open_control_store

    backbone = await open_redis(config.store, config)
    try:
        store = await open_control_store(config.store, config, backbone.append)
    except BaseException:
        await backbone.close()
        raise
    backbone.attach(store)
    return OpenedStores(backbone, store)
