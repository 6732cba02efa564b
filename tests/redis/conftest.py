"""Real Redis servers for the tests of this folder."""

import pathlib
from collections.abc import Callable, Iterator

import pytest

from tests.redis.server import RedisServer, program, running

NO_SERVER = "no redis-server here: none came with the test dependencies, none is installed"


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for all tests that do it no harm."""
    _needs_a_server()
    with running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(shared_redis: RedisServer) -> RedisServer:
    """The shared server, emptied."""
    shared_redis.client.flushall()
    return shared_redis


@pytest.fixture
def make_redis(tmp_path: pathlib.Path) -> Iterator[Callable[..., RedisServer]]:
    """Servers of a test's own, which it may harm."""
    _needs_a_server()
    servers: list[RedisServer] = []

    def make(**options: str | int) -> RedisServer:
        servers.append(RedisServer(tmp_path / f"redis-{len(servers)}", **options))
        servers[-1].start()
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def _needs_a_server() -> None:
    if program() is None:
        pytest.skip(NO_SERVER)
