"""Views over two nodes that share a Redis: the same events in the same form."""

from fastsse import Config, Server
from fastsse.client import StreamView, listen
from tests.redis.onelog import until
from tests.redis.server import RedisServer

VIEW = StreamView(filter="data.n > 1 && meta.from == 'two'", envelope=True)


async def test_view_is_the_same_on_every_node_live_and_replayed(redis: RedisServer) -> None:
    options = {"port": 0, "drain": 0, "access_lines": 0, "store": redis.url}
    async with Server(Config(**options)) as one, Server(Config(**options)) as two:
        # Once both nodes are known, records say which kind of data they have.
        await until(lambda: redis.client.get("{fastsse}:format") == b"2")
        urls = [server.addresses[0] for server in (one, two)]
        live = listen(urls[0], "a", view=VIEW)
        async with live:
            for n in range(4):
                await one.publish_later("a", {"n": n}, meta={"from": "one"})
                await two.publish_later("a", {"n": n}, event="x", meta={"from": "two"})
            told = [(await anext(live)).envelope for _ in range(2)]
        for url in urls:
            async with listen(url, "a", since="earliest", view=VIEW) as replayed:
                assert [(await anext(replayed)).envelope for _ in range(2)] == told
        assert [(one.data, one.event) for one in told if one] == [({"n": 2}, "x"), ({"n": 3}, "x")]
