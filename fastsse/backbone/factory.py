"""Opens the backbone that the options name, for a process that is its node's only one."""

from collections.abc import Callable
from typing import NamedTuple

from fastsse.backbone import Backbone
from fastsse.backbone.memory import MemoryBackbone
from fastsse.config import Config
from fastsse.config.store import MEMORY
from fastsse.control.service import ControlStore
from fastsse.positions import now_ms

__all__ = ["OpenedStores", "open_backbone"]


class OpenedStores(NamedTuple):
    """A backbone, and what control services keep over restarts where it can keep that. Both end
    with the backbone's `close`."""

    backbone: Backbone
    control_store: ControlStore | None


async def open_backbone(config: Config, now_ms: Callable[[], int] = now_ms) -> OpenedStores:
    """Opens what `store` names. Raises FastsseError when it can't be opened."""
    path = config.store_path
    if path is not None:
        from fastsse.backbone.sqlite import SqliteBackbone

        sqlite = SqliteBackbone(path, config, config.ack, config.store_total, now_ms)
        return OpenedStores(sqlite, sqlite.control_store)
    if config.store == MEMORY:
        return OpenedStores(MemoryBackbone(now_ms), None)
    from fastsse.backbone.redis import open_redis

    redis = await open_redis(config.store, config)
    return OpenedStores(redis, redis.control_store)
