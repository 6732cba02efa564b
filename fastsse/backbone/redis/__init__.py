"""Redis as the log that many nodes share: any node accepts a publish, and all deliver it."""

from fastsse.backbone.redis.backbone import COUNTS, RedisBackbone, open_redis

__all__ = ["COUNTS", "RedisBackbone", "open_redis"]
