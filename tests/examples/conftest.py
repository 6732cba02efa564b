"""The real Redis servers of the tests beside these."""

import pathlib

import pytest

from tests.redis.conftest import NO_SERVER, make_redis, redis, shared_redis
from tests.redis.server import program

__all__ = ["make_redis", "redis", "shared_redis"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if program() is None:
        here = str(pathlib.Path(__file__).parent)
        for item in items:
            if str(item.path).startswith(here) and "redis" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.skip(reason=NO_SERVER))
