"""Redis with Sentinel: a failover under load needs no restart, and what Redis lost is a gap."""

import asyncio
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis as client_library

from fastsse.config.redis_url import check_redis_url, read_sentinel_url
from fastsse.errors import FastsseError
from tests.loopback import held_port
from tests.redis import cluster
from tests.redis.cluster import Publishing, subscribers, until
from tests.redis.server import RedisServer, program

MakeRedis = Callable[..., RedisServer]
NAME = "orders"


class Sentinel:
    """One sentinel process."""

    def __init__(self, folder: pathlib.Path, master: RedisServer, quorum: int) -> None:
        folder.mkdir(parents=True)
        self._held = held_port()
        self.port: int = self._held.getsockname()[1]
        file = folder / "sentinel.conf"
        file.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor {NAME} 127.0.0.1 {master.port} {quorum}\n"
            f"sentinel down-after-milliseconds {NAME} 500\n"
            f"sentinel failover-timeout {NAME} 2000\n"
        )
        found = program()
        assert found is not None
        with (folder / "log").open("ab") as output:
            self._process = subprocess.Popen(
                [found, str(file), "--sentinel"], stdout=output, stderr=output,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        self.client: Any = client_library.Redis(port=self.port, socket_timeout=10)

    def state(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self.client.sentinel_master(NAME)
        except client_library.exceptions.RedisError:
            return {}
        return found

    def close(self) -> None:
        self.client.close()
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._held.close()


def is_master(server: RedisServer) -> bool:
    """A sentinel that makes a server the master cuts the connections of its clients."""
    try:
        return bool(server.client.info("replication")["role"] == "master")
    except client_library.exceptions.ConnectionError:
        return False


@pytest.fixture
def failover(
    make_redis: MakeRedis, tmp_path: pathlib.Path
) -> Iterator[tuple[RedisServer, RedisServer, list[Sentinel]]]:
    """A master, a replica, and three sentinels that know both."""
    master, replica = make_redis(), make_redis()
    replica.client.replicaof("127.0.0.1", master.port)
    sentinels = [Sentinel(tmp_path / f"sentinel{number}", master, 2) for number in range(3)]
    until_s = time.monotonic() + 30
    while any(
        one.state().get("num-slaves") != 1 or one.state().get("num-other-sentinels") != 2
        for one in sentinels
    ):
        assert time.monotonic() < until_s
        time.sleep(0.05)
    yield master, replica, sentinels
    for one in sentinels:
        one.close()


def url_of(sentinels: list[Sentinel]) -> str:
    hosts = ",".join(f"127.0.0.1:{one.port}" for one in sentinels)
    return f"redis+sentinel://{hosts}/{NAME}"


async def test_a_failover_under_load_goes_on_and_what_is_lost_is_a_gap(
    failover: tuple[RedisServer, RedisServer, list[Sentinel]],
) -> None:
    master, replica, sentinels = failover
    url = url_of(sentinels)
    async with (
        cluster.node(url) as first,
        cluster.node(url) as second,
        subscribers([first, second], last_event_id="earliest") as readers,
    ):
        publishing = Publishing([first, second])
        ended = asyncio.Event()
        going = asyncio.create_task(publishing.keep_on("e", ended))
        await until(lambda: len(publishing.acknowledged) > 200)
        await asyncio.to_thread(master.kill)
        killed_at = len(publishing.acknowledged)
        await until(lambda: is_master(replica))
        await until(lambda: len(publishing.acknowledged) > killed_at + 200)
        ended.set()
        await going
        last = publishing.acknowledged[-1]
        for reader in readers:
            await until(lambda reader=reader: last in reader.seen)
            lost = set(publishing.acknowledged) - set(reader.seen)
            assert not lost or reader.gaps
            assert len(set(reader.seen)) == len(reader.seen)
        late: Any
        async with subscribers([first, second], last_event_id="earliest") as late:
            for reader in late:
                await until(lambda reader=reader: last in reader.seen)
            assert late[0].seen == late[1].seen


async def test_sentinels_that_are_away_are_passed_over_and_named(
    failover: tuple[RedisServer, RedisServer, list[Sentinel]],
) -> None:
    _, _, sentinels = failover
    url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinels[0].port}/{NAME}"
    async with cluster.node(url) as node:
        assert (await cluster.post(node, "x")).status_code == 200
    with pytest.raises(FastsseError, match="no sentinel names the master absent"):
        async with cluster.node(url.replace(NAME, "absent"), redis_start="0s"):
            pass


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://h:26379",
        "redis+sentinel:///orders",
        "redis+sentinel://h:x/orders",
        "redis+sentinel://h/or ders",
        "redis+sentinel://h/orders?x=1",
        "redis+sentinel://h/orders?ssl_ca_certs=x",
    ],
)
def test_a_url_with_sentinels_that_can_t_be_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        check_redis_url(url)


def test_a_url_with_sentinels_names_both_logins() -> None:
    found = read_sentinel_url(
        "rediss+sentinel://u:p@a,[::1]:7/m/3?sentinel_password=s&ssl_cert_reqs=required"
    )
    assert found is not None
    assert found.hosts == (("a", 26379), ("::1", 7))
    assert (found.name, found.user, found.password) == ("m", None, "s")
    assert found.server == "rediss://u:p@master/3?ssl_cert_reqs=required"


async def test_an_evicting_redis_is_refused_unless_losses_are_allowed(
    make_redis: MakeRedis,
) -> None:
    redis = make_redis(maxmemory="20mb", maxmemory_policy="allkeys-lru")
    with pytest.raises(FastsseError, match="allkeys-lru"):
        async with cluster.node(redis.url):
            pass
    async with cluster.node(redis.url, redis_may_evict=True) as node:
        assert (await cluster.post(node, "x")).status_code == 200
