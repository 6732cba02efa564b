"""The real Redis servers of other tests."""

from tests.redis.conftest import make_redis, redis, shared_redis

__all__ = ["make_redis", "redis", "shared_redis"]
