"""Redis as the log that many nodes share: any of them takes a publish, all deliver it."""

from fastsse.backbone.redis.backbone import COUNTS, RedisBackbone, open_redis

__all__ = ["COUNTS", "RedisBackbone", "open_redis"]
