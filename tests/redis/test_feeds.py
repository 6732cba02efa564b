"""Feeds over two nodes that share a Redis: stored at one, opened at the other."""

from collections.abc import Callable

import pytest

from fastsse import Config, Server
from fastsse.client import listen
from fastsse.errors import Unavailable
from tests.http.raw import connected, get, request
from tests.redis.server import RedisServer

SYMBOLS = [f"prices/{n:03}" for n in range(300)]


async def test_feed_of_one_node_opens_at_once_at_another_and_after_its_end(
    redis: RedisServer,
) -> None:
    options = {"port": 0, "drain": 0, "access_lines": 0, "store": redis.url, "max_feeds": 20}
    async with Server(Config(**options)) as two:
        async with Server(Config(**options)) as one:
            for n in range(10):  # Whatever the nodes have sent each other by then.
                feed = await one.store_feed([*SYMBOLS, str(n)])
                async with connected(two) as raw:
                    await raw.send(get(f"/events?feed={feed}"))
                    stream = await raw.stream()
                    sent = await one.publish_later(SYMBOLS[n], str(n))
                    assert (await stream.next()).last_event_id == sent
                assert feed == await two.store_feed([*SYMBOLS, str(n)])
        async with listen(two.addresses[0], SYMBOLS, last_each=1) as events:
            assert [(await anext(events)).data for _ in range(10)] == [str(n) for n in range(10)]
        async with connected(two) as raw:
            await raw.send(get(f"/events?feed={'0' * 32}&refuse=status"))
            assert (await raw.answer()).status == 404
        for n in range(9):
            await two.store_feed([str(n)])
        with pytest.raises(Unavailable, match="feeds"):
            await two.store_feed(["one too many"])


async def test_without_redis_a_feed_is_not_unknown_but_later(
    make_redis: Callable[..., RedisServer],
) -> None:
    redis = make_redis()
    options = {"port": 0, "drain": 0, "access_lines": 0, "store": redis.url, "redis_timeout": "1s"}
    async with Server(Config(**options)) as server:
        feed = await server.store_feed(SYMBOLS)
        redis.kill()
        async with connected(server) as raw:
            await raw.send(get(f"/events?feed={'0' * 32}&refuse=status"))
            assert (await raw.answer()).status == 503
        async with connected(server) as raw:
            body = b'["a"]'
            await raw.send(request("POST", "/feeds", "Content-Type: application/json", body=body))
            answer = await raw.answer()
            assert (answer.status, answer.json["reason"]) == (503, "feeds")
        async with connected(server) as raw:  # The worker has read this one.
            await raw.send(get(f"/events?feed={feed}"))
            assert (await raw.stream()) is not None
