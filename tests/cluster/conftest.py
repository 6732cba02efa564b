"""The real Redis servers of the tests in `tests/redis`."""

from tests.redis.conftest import make_redis, redis, shared_redis

__all__ = ["make_redis", "redis", "shared_redis"]
