"""A Redis is reached by all the ways that a URL can name, or the log says why it is not."""

import pathlib
from collections.abc import Callable

import pytest

from fastsse.config import Config, ConfigError
from fastsse.redis.connection import RedisAddress, RedisConnection
from fastsse.redis.errors import AnswerLost, RedisRefusal
from tests.redis.cluster import Publishing, node, saw_the_same, subscribers
from tests.redis.onelog import TIMEOUT_S
from tests.redis.server import RedisServer
from tests.redis.tls import Authority, TlsProxy


@pytest.fixture
def authority(tmp_path: pathlib.Path) -> Authority:
    return Authority(tmp_path)


async def says(url: str, timeout_s: float = TIMEOUT_S) -> str:
    """What came of asking for an echo there."""
    try:
        link = await RedisConnection.open(RedisAddress(url, timeout_s))
    except (AnswerLost, RedisRefusal) as fault:
        return str(fault)
    try:
        return (await link.call(b"ECHO", b"well")).decode()
    finally:
        await link.close()


async def test_nodes_share_a_log_through_tls(redis: RedisServer, authority: Authority) -> None:
    async with TlsProxy(redis.port, authority.server_context()) as proxy:
        store = f"{proxy.url}/0?ssl_ca_certs={authority.path}"
        # A connection costs much of a machine that has other work.
        patient = {"redis_timeout": f"{TIMEOUT_S}s"}
        async with (
            node(store, **patient) as one,
            node(store, **patient) as two,
            subscribers([one, two]) as readers,
        ):
            publishing = Publishing([one, two])
            for number in range(100):
                await publishing.publish(f"{number} a", f"{number} b")
                if len(publishing.acknowledged) >= 4:
                    break
            assert len(publishing.acknowledged) >= 4
            await saw_the_same(readers, *publishing.acknowledged)


async def test_tls_is_refused_that_can_t_be_trusted(
    redis: RedisServer, authority: Authority, tmp_path: pathlib.Path
) -> None:
    other = Authority(tmp_path, "other")
    ours = f"?ssl_ca_certs={authority.path}"
    async with (
        TlsProxy(redis.port, authority.server_context()) as proxy,
        TlsProxy(redis.port, authority.server_context("redis.example")) as elsewhere,
    ):
        assert await says(proxy.url + ours) == "well"
        assert "local issuer certificate" in await says(proxy.url)
        assert "local issuer" in await says(f"{proxy.url}?ssl_ca_certs={other.path}")
        assert "not valid for '127.0.0.1'" in await says(elsewhere.url + ours)
        assert await says(f"{elsewhere.url}{ours}&ssl_check_hostname=false") == "well"
        assert f"{tmp_path}/none can't be read" in await says(
            f"{proxy.url}?ssl_ca_certs={tmp_path}/none"
        )
        assert "reached" in await says(proxy.url.replace("rediss:", "redis:"))


async def test_a_server_without_tls_is_named_as_what_it_may_be(redis: RedisServer) -> None:
    assert await says(redis.url.replace("redis:", "rediss:"), 0.2) == (
        "Redis does not answer; it may speak no TLS"
    )


async def test_a_start_does_not_wait_for_what_can_t_be_trusted(
    redis: RedisServer, authority: Authority
) -> None:
    async with TlsProxy(redis.port, authority.server_context()) as proxy:
        with pytest.raises(Exception, match="no trusted TLS connection to Redis"):
            async with node(proxy.url, redis_start="1h"):
                pass


async def test_a_user_a_password_a_database_and_a_socket_are_named_by_the_url(
    make_redis: Callable[..., RedisServer], tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "redis.sock"
    redis = make_redis(unixsocket=str(path))
    redis.client.execute_command("ACL", "SETUSER", "me", "on", ">a b/@", "~*", "&*", "+@all")
    redis.client.execute_command("ACL", "SETUSER", "default", "resetpass", ">locked")
    for url in (
        f"redis://me:a%20b%2F%40@127.0.0.1:{redis.port}/3",
        f"redis://127.0.0.1:{redis.port}?username=me&password=a%20b%2F%40&db=3",
        f"unix://me:a%20b%2F%40@{path}?db=3",
    ):
        Config(store=url)
        link = await RedisConnection.open(RedisAddress(url, TIMEOUT_S))
        assert await link.call(b"ACL", b"WHOAMI") == b"me"
        assert b" db=3 " in await link.call(b"CLIENT", b"LIST")
        await link.close()
    assert await says(f"redis://me:wrong@127.0.0.1:{redis.port}") == (
        "Redis refuses the user or password (WRONGPASS)"
    )
    for url in (f"redis://127.0.0.1:{redis.port}/3", f"unix://{path}"):
        assert await says(url) == "Redis requires a password (NOAUTH)"
    assert "out of range" in await says(f"redis://me:a%20b%2F%40@127.0.0.1:{redis.port}/999")
    assert "/none" in await says(f"unix://{tmp_path}/none")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://h/0?foo=1", "may have db, username, password"),
        ("redis://h/0?ssl_ca_certs=x", "may have db, username, password"),
        ("redis://h/0?decode_responses=true", "may have"),
        ("rediss://h/0?ssl_check_hostname=maybe", "ssl_check_hostname"),
        ("redis://h/zero", "number of a database"),
        ("redis://h?db=zero", "db in its query"),
        ("redis://h:99999/0", "no host and port"),
        ("redis://:se/cret@h/0", "percent-encoded"),
        ("redis://:se#cret@h/0", "percent-encoded"),
        ("redis://:se?cret@h/0", "h"),
        ("redis:///0", "it has no host"),
        ("unix://run/redis.sock", "third slash"),
        ("unix://", "it has no host"),
        ("redis://h h/0", "not a Redis URL"),
        ("http://h/0", "not a Redis URL"),
    ],
)
def test_a_url_that_can_t_be_is_refused_before_anything_starts(url: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(store=url)
    assert why in str(caught.value)
    assert "cret" not in str(caught.value)
