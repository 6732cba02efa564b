"""What happens to Redis, and what publishers and subscribers see of it: nothing acknowledged is
lost where Redis keeps its promise, and where it doesn't every node tells a gap."""

import asyncio
import contextlib
import pathlib
import shutil
import signal
from collections.abc import Callable

import pytest
import redis as client_library

from tests.redis.onelog import Node, node_on, until
from tests.redis.proxy import Proxy
from tests.redis.server import RedisServer

MakeRedis = Callable[..., RedisServer]


async def publish_while(node: Node, name: str, event: Callable[[], None]) -> None:
    """Publishes a little before something happens, and until it works again."""
    for index in range(20):
        node.publish(f"{name} before {index}")
    await node.until(lambda: f"{name} before 0" in node.acknowledged)
    await asyncio.to_thread(event)
    await node.published_again(f"{name} after")


async def test_a_killed_redis_that_writes_all_down_loses_nothing(make_redis: MakeRedis) -> None:
    server = make_redis(appendonly="yes", appendfsync="always")
    async with node_on(server.url) as node, node_on(server.url) as other:
        for name in ("first", "second", "third"):
            await publish_while(node, name, server.restart)
        await other.saw(*node.acknowledged, *node.seen)
        await node.saw(*other.seen)
        assert node.seen == other.seen
        assert not node.broken
        assert not other.broken
        stored = [entry.position for entry in (await node.read("t")).entries]
        assert stored == node.positions


@pytest.mark.parametrize("how", ["SIGKILL", "SHUTDOWN NOSAVE"])
async def test_a_redis_that_forgets_all_is_reported_as_a_gap(
    make_redis: MakeRedis, how: str
) -> None:
    server = make_redis()

    def end_and_start() -> None:
        if how == "SIGKILL":
            server.kill(signal.SIGKILL)
        else:
            with contextlib.suppress(client_library.exceptions.RedisError):
                server.client.shutdown(nosave=True)
            server.wait_until_ended()
        server.start()

    async with node_on(server.url) as node, node_on(server.url) as other:
        await publish_while(node, "once", end_and_start)
        after = list(node.acknowledged)[-1]
        await other.saw(after)
        assert [why for why, _ in node.broken] == [why for why, _ in other.broken] == ["flushed"]
        # A client that resumes from before receives the gap too, and what came after.
        found = await other.read("t")
        assert found.evicted_through >= node.broken[0][1] - 1
        assert [entry.position for entry in found.entries][-1] == other.positions[-1]


async def test_a_flushed_log_is_reported_as_a_gap(redis: RedisServer) -> None:
    async with node_on(redis.url) as node, node_on(redis.url) as other:
        await node.answered("before")
        redis.client.flushall()
        for each in (node, other):
            await each.until(lambda each=each: each.broken != [])  # type: ignore[misc]
        await node.answered("after")
        await other.saw("after")
        assert node.acknowledged["after"] > node.acknowledged["before"]
        assert [why for why, _ in node.broken + other.broken] == ["flushed", "flushed"]


async def test_a_log_flushed_under_load_is_reported_as_a_gap(redis: RedisServer) -> None:
    async with node_on(redis.url) as node, node_on(redis.url) as other:
        for index in range(50):
            node.publish(f"a {index}")
            other.publish(f"b {index}")
            if index == 25:
                redis.client.flushall()
            await asyncio.sleep(0)
        await node.published_again("after")
        await other.saw(list(node.acknowledged)[-1])
        assert "flushed" in {why for why, _ in node.broken}
        assert "flushed" in {why for why, _ in other.broken}


async def test_a_promoted_replica_that_lags_is_reported_as_a_gap(make_redis: MakeRedis) -> None:
    master, replica = make_redis(), make_redis()
    replica.client.replicaof("127.0.0.1", master.port)
    async with (
        Proxy(master.port) as proxy,
        Proxy(master.port) as second,
        node_on(proxy.url) as node,
        node_on(second.url) as other,
    ):
        await node.answered("both have it")
        await until(lambda: replica.client.xlen("fastsse") == 2)
        replica.client.replicaof("NO", "ONE")
        await node.answered("lost 1")
        await node.answered("lost 2")
        await other.saw("lost 2")
        await asyncio.to_thread(master.kill)
        for each in (proxy, second):
            each.target = replica.port
            each.cut()
        await node.published_again("after")
        await other.saw(list(node.acknowledged)[-1])
        assert node.seen[:3] == other.seen[:3] == ["both have it", "lost 1", "lost 2"]
        assert "lost" in {why for why, _ in node.broken}
        assert "lost" in {why for why, _ in other.broken}
        assert node.positions == other.positions


async def test_a_promoted_replica_with_everything_is_no_gap(make_redis: MakeRedis) -> None:
    master, replica = make_redis(), make_redis()
    replica.client.replicaof("127.0.0.1", master.port)
    await until(lambda: replica.client.info("replication")["master_link_status"] == "up")
    async with Proxy(master.port) as proxy, node_on(proxy.url, redis_wait=1) as node:
        for index in range(20):
            node.publish(str(index))
        await node.until(lambda: len(node.acknowledged) == 20)
        await asyncio.to_thread(master.kill)
        replica.client.replicaof("NO", "ONE")
        proxy.target = replica.port
        # There is no replica now, and one is wanted: refused, and named.
        await node.answered("alone")
        await node.troubled("replicas")
        assert node.refused == ["alone"]
        assert node.broken == []
        found = await node.read("t")
        assert len(found.entries) >= 20


async def test_a_node_that_missed_entries_receives_a_gap(make_redis: MakeRedis) -> None:
    server = make_redis(stream_node_max_entries=10)
    async with (
        Proxy(server.port) as proxy,
        node_on(proxy.url, redis_events=100) as node,
        node_on(server.url, redis_events=100) as other,
    ):
        await node.answered("before")
        proxy.target = 1  # No process listens there.
        proxy.cut()
        for first in range(0, 1000, 100):
            await other.answered(*(f"{first + n}" for n in range(100)))
        proxy.target = server.port
        await node.saw("999")
        assert [why for why, _ in node.broken] == ["trimmed"]
        # At least what was promised is there, and what follows the gap is whole.
        assert len(node.seen) - 1 >= 100
        assert node.seen[1:] == other.seen[-len(node.seen) + 1 :]
        assert node.broken[0][1] >= other.positions[-len(node.seen)]


async def test_a_node_that_was_away_goes_on_without_gap_or_repeat(redis: RedisServer) -> None:
    async with Proxy(redis.port) as proxy, node_on(proxy.url) as node, node_on(redis.url) as other:
        await node.answered("before")
        proxy.target = 1
        proxy.cut()
        for index in range(50):
            other.publish(f"meanwhile {index}")
        await other.until(lambda: len(other.acknowledged) == 50)
        await node.troubled("can't be reached")
        node.publish("refused")
        assert node.refused == ["refused"]
        proxy.target = redis.port
        await node.saw(*other.seen)
        await node.well()
        assert node.seen == other.seen
        assert not node.broken


async def test_a_pause_of_redis_holds_publishes_up(redis: RedisServer) -> None:
    async with node_on(redis.url, redis_timeout="10s") as node:
        redis.client.client_pause(700)
        for index in range(20):
            node.publish(str(index))
        await node.until(lambda: len(node.acknowledged) == 20)
        assert not node.refused
        assert not node.broken


async def test_killed_connections_come_back_without_gap(redis: RedisServer) -> None:
    async with node_on(redis.url) as node, node_on(redis.url) as other:
        for index in range(100):
            node.publish(str(index))
            if index % 20 == 10:
                await asyncio.to_thread(
                    redis.client.execute_command, "CLIENT", "KILL", "TYPE", "normal"
                )
        await node.until(lambda: len(node.acknowledged) + len(node.refused) == 100)
        await other.saw(*node.acknowledged)
        assert not node.broken
        assert not other.broken


async def test_a_full_redis_is_named_and_recovers(make_redis: MakeRedis) -> None:
    server = make_redis()
    async with node_on(server.url) as node:
        await node.answered("before")
        server.client.config_set("maxmemory", 1)
        await node.answered("too much")
        assert node.refused == ["too much"]
        assert node.backbone.trouble == "Redis is out of memory (OOM)"
        node.publish("at once")
        assert node.refused == ["too much", "at once"]
        server.client.config_set("maxmemory", 0)
        await node.well()
        await node.answered("after")
        assert node.seen == ["before", "after"]
        assert not node.broken


async def test_a_refusal_is_probed_once_and_no_more_than_needed(make_redis: MakeRedis) -> None:
    server = make_redis()

    def scripts_that_ended_well() -> int:
        stats = server.client.info("commandstats").get("cmdstat_evalsha", {})
        return int(stats.get("calls", 0)) - int(stats.get("failed_calls", 0))

    async with node_on(server.url) as node:
        await node.answered("before")
        server.client.config_set("maxmemory", 1)
        await node.answered("too much")
        before = scripts_that_ended_well()
        server.client.config_set("maxmemory", 0)
        await node.well()
        await node.answered("after")
        # The probe that found Redis well, and the event.
        assert scripts_that_ended_well() - before == 2


async def test_a_read_only_replica_is_named_and_left_alone(make_redis: MakeRedis) -> None:
    server, master = make_redis(), make_redis()
    async with node_on(server.url) as node:
        await node.answered("before")
        server.client.execute_command("CONFIG", "SET", "replica-serve-stale-data", "yes")
        server.client.replicaof("127.0.0.1", 1)
        await node.answered("refused")
        await node.troubled("READONLY")
        server.client.replicaof("NO", "ONE")
        await node.well()
        await node.answered("after")
        assert node.seen == ["before", "after"]
    del master


async def test_a_redis_that_can_t_save_is_named(
    make_redis: MakeRedis, tmp_path: pathlib.Path
) -> None:
    server = make_redis()
    async with node_on(server.url) as node:
        await node.answered("before")
        server.client.config_set("save", "3600 1000000")
        shutil.rmtree(tmp_path / "redis-0")
        server.client.bgsave()
        await until(lambda: server.client.info("persistence")["rdb_last_bgsave_status"] == "err")
        await node.answered("refused")
        assert node.refused == ["refused"]
        assert node.backbone.trouble == "Redis can't save to its disk (MISCONF)"
        server.client.config_set("stop-writes-on-bgsave-error", "no")
        await node.well()
        (tmp_path / "redis-0").mkdir()


async def test_rights_taken_away_are_named(make_redis: MakeRedis) -> None:
    server = make_redis()
    server.client.execute_command("ACL", "SETUSER", "node", "on", ">secret", "~*", "+@all")
    url = f"redis://node:secret@127.0.0.1:{server.port}/0"
    async with node_on(url) as node:
        await node.answered("before")
        server.client.execute_command("ACL", "SETUSER", "node", "-xadd")
        await node.answered("refused")
        assert "NOPERM" in (node.backbone.trouble or "")
        server.client.execute_command("ACL", "SETUSER", "node", "+xadd")
        await node.well()
        server.client.execute_command("ACL", "SETUSER", "node", "off")
        server.client.execute_command("CLIENT", "KILL", "USER", "node")
        await node.troubled("WRONGPASS")
        assert "secret" not in (node.backbone.trouble or "")
        server.client.execute_command("ACL", "SETUSER", "node", "on")
        await node.well()
        await node.answered("after")
        assert node.seen == ["before", "after"]
        assert not node.broken


async def test_a_password_that_is_wanted_is_named(make_redis: MakeRedis) -> None:
    server = make_redis()
    async with node_on(server.url) as node:
        server.client.config_set("requirepass", "new")
        server.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await node.troubled("NOAUTH")
        server.client.close()
        server.client = client_library.Redis(port=server.port, password="new")
        server.client.config_set("requirepass", "")
        await node.well()


async def test_a_redis_that_loads_is_named(make_redis: MakeRedis) -> None:
    server = make_redis(rdbcompression="no")
    async with node_on(server.url) as node:
        await node.answered("before")
        # `DEBUG POPULATE` is forbidden by later versions and by Valkey.
        server.client.mset({f"filler:{number}": "x" * 5_000 for number in range(4_000)})
        server.client.save()
        await asyncio.to_thread(server.kill)
        server.options["key_load_delay"] = 400
        starting = asyncio.create_task(asyncio.to_thread(server.start))
        await node.troubled("LOADING")
        await starting
        await node.well()
        await node.answered("after")
        assert not node.broken


async def test_replicas_that_are_waited_for_and_missing_are_named(redis: RedisServer) -> None:
    async with node_on(redis.url, redis_wait=1, redis_timeout="600ms") as node:
        await node.answered("alone")
        assert node.refused == ["alone"]
        await node.troubled("replicas")


async def test_foreign_and_poisoned_entries_are_skipped_and_counted(redis: RedisServer) -> None:
    def add(record: bytes) -> None:
        sequence = int(redis.client.get("{fastsse}:newest").split()[0]) + 1
        place = redis.client.xadd("fastsse", {"s": sequence, "k": "x 1 0 0", "e": record})
        redis.client.set("{fastsse}:newest", f"{sequence} {place.decode()}")

    poison = [
        b"", b"null", b"[]", b'{"t":"a"', b'{"t":5,"d":"x"}', b'{"t":"a","d":5}', b'{"d":"x"}',
        b'{"t":"a","d":"x","e":"a\\nb"}', b'{"t":"a","d":"x","e":"fastsse.gap"}',
        b'{"t":"a","d":"x","i":"1-1"}', b'{"t":"a","d":"x","i":"a\\rb"}', b'{"t":"$a","d":"x"}',
        b'{"t":"a","d":"x","r":-1}', b'{"t":"a","d":"x","p":"yes"}', b'{"t":"a\\u0000","d":"x"}',
        b'{"t":"a","d":"\xff"}', b'{"t":"a","d":"\\ud800"}',
    ]  # fmt: skip
    foreign = [
        {"hello": "world"}, {"s": "x", "k": "a 1 0 0", "e": "{}"}, {"s": "1", "k": "", "e": "{}"},
        {"s": str(10**30), "m": b"\xff"},
    ]  # fmt: skip
    async with node_on(redis.url) as node:
        await node.answered("before")
        for fields in foreign[:3]:
            redis.client.xadd("fastsse", fields)
        for record in poison:
            add(record)
        await node.answered("after")
        assert node.seen == ["before", "after"]
        assert not node.broken
        counted = node.backbone.counters()["redis_entries_skipped"]
        assert counted == len(poison) + 3
        assert (await node.read("*")).is_last
        redis.client.xadd("fastsse", foreign[3])
        await node.published_again("and on")


async def test_a_key_of_ours_that_holds_something_else_is_named(redis: RedisServer) -> None:
    async with node_on(redis.url) as node:
        redis.client.set("{fastsse}:topic:t", "not a list")
        await node.answered("stored all the same")
        assert node.acknowledged
        assert node.backbone.counters()["redis_index_failures"] > 0
        redis.client.delete("fastsse")
        redis.client.set("fastsse", "not a stream")
        await node.troubled("WRONGTYPE")
        redis.client.delete("fastsse")
        await node.published_again("after")


async def test_time_out_of_reach_is_refused_at_start(redis: RedisServer) -> None:
    with pytest.raises(Exception, match="Redis can't be reached"):
        async with node_on("redis://127.0.0.1:1/0", redis_start="0s"):
            pass
