"""Deletions over two nodes that share a Redis, and over a node that starts afterwards."""

from fastsse import Config, Server
from fastsse.client import StreamView, listen
from tests.redis.onelog import until
from tests.redis.server import RedisServer


async def data_of(server: Server, topics: list[str] | str, end: str) -> list[str]:
    found = []
    async with listen(server.addresses[0], topics, since="earliest") as stream:
        async for event in stream:
            assert event.gap is None
            found.append(event.data)
            if event.id == end:
                return found
    raise AssertionError(found)


async def test_no_node_shows_what_another_deleted(redis: RedisServer) -> None:
    options = {"port": 0, "drain": 0, "access_lines": 0, "store": redis.url}
    async with Server(Config(**options)) as one, Server(Config(**options)) as two:
        await until(lambda: redis.client.get("{fastsse}:format") == b"2")
        view = StreamView(deleted=True)
        async with listen(two.addresses[0], "a", view=view) as live:
            first = await one.publish_later(["a", "b"], "gone")
            await one.publish_later("a", "kept")
            assert [(await anext(live)).data for _ in "12"] == ["gone", "kept"]
            control = await two.delete_event("b", first)
            told = await anext(live)
            assert (told.event, told.id) == ("fastsse.deleted", control)
        await one.publish_later(["p/1", "p/2"], "purged")
        await one.purge_topic("p/1")
        end = await two.publish_later("b", "end")
        async with Server(Config(**options)) as three:
            for server in (one, two, three):
                assert await data_of(server, ["a", "b", "p/1", "p/2"], end) == ["kept", "end"]
                assert await data_of(server, "*", end) == ["kept", "end"]
                assert await data_of(server, ["b", "p/{n}"], end) == ["end"]
    stored = b"".join(
        entry for key in redis.client.keys("*topic:*") for entry in redis.client.lrange(key, 0, -1)
    )
    assert b"kept" in stored
    assert b"gone" not in stored
    assert b"purged" not in stored


async def test_a_purge_of_a_full_topic_deletes_all_that_it_kept(redis: RedisServer) -> None:
    rule = {"match": "few/*", "history_events": 2}
    options = {"port": 0, "drain": 0, "access_lines": 0, "store": redis.url, "topics": [rule]}
    async with Server(Config(**options)) as one:
        for number in range(3):
            await one.publish_later(["few/1", "all/1"], str(number))
        await one.purge_topic("few/1")
        end = await one.publish_later("all/1", "end")
        async with Server(Config(**options)) as two:
            for server in (one, two):
                assert await data_of(server, "all/1", end) == ["0", "end"]
