"""A Redis that is managed: a user with the least rights, and commands that it may not call."""

from collections.abc import Callable

import httpx

from tests.redis import cluster
from tests.redis.cluster import subscribers
from tests.redis.server import RedisServer

#: As the guide on scaling has it.
RIGHTS = (
    "~fastsse", "~{fastsse}:*", "resetchannels", "&{fastsse}:*", "-@all", "+@read", "+@write",
    "+eval", "+evalsha", "+@pubsub", "+@connection", "-@admin", "-@dangerous",
    "+time", "+wait", "+info", "+role",
)  # fmt: skip


def test_the_guide_names_these_rights() -> None:
    with open("docs/guides/scaling.md") as page:
        assert " ".join(RIGHTS) in page.read()


async def test_a_user_with_the_least_rights_can_do_all(
    make_redis: Callable[..., RedisServer],
) -> None:
    redis = make_redis()
    redis.client.execute_command("ACL", "SETUSER", "fastsse", "on", ">secret", *RIGHTS)
    redis.client.execute_command("ACL", "LOG", "RESET")
    url = redis.url.replace("redis://", "redis://fastsse:secret@")
    for run in range(2):
        async with (
            cluster.node(url) as first,
            cluster.node(url) as second,
            subscribers([first, second], last_event_id="earliest") as readers,
            httpx.AsyncClient(trust_env=False) as client,
        ):
            for number in range(3):
                await cluster.post(first if number % 2 else second, f"{run} {number}")
            for reader in readers:
                await reader.saw(f"{run} 2")
            answers = [
                await client.post(f"{first}/events?topic=t&key=k{run}", content=b"x"),
                await client.post(f"{first}/topics/end?topic=z{run}"),
                await client.get(f"{second}/events?topic=t&last=2&wait=0"),
                await client.put(f"{first}/streams/s{run}", content=b""),
                await client.get(f"{second}/readyz"),
            ]
            assert [answer.status_code for answer in answers] == [200, 200, 200, 201, 200]
    denied = {entry[b"object"] for entry in redis.client.execute_command("ACL", "LOG")}
    # The name of the library, which old versions do not take either.
    assert denied <= {b"client", b"client|setinfo"}
