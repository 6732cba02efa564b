"""What operators see and do at one node holds for all nodes of a Redis and all their workers."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from fastsse.doctor.why import Question, why
from tests.auth.minting import mint
from tests.cluster.watching import SECRET
from tests.redis import cluster
from tests.redis.server import RedisServer

OPERATOR = {"Authorization": f"Bearer {mint({'fastsse': {'console': 'act'}}, key=SECRET).decode()}"}
STREAMS = 3


@pytest.fixture
async def three(redis: RedisServer) -> AsyncIterator[list[str]]:
    """A node with two workers, and two in this process."""
    options: dict[str, Any] = {"jwt_key": SECRET}
    async with (
        cluster.process(redis.url, "--workers", "2", **options) as one,
        cluster.node(redis.url, **options) as two,
        cluster.node(redis.url, **options) as third,
    ):
        yield [one, two, third]


class Held:
    """Streams that are open at every node, each with a subject and an agent of its own."""

    def __init__(self, urls: list[str]) -> None:
        self._urls = urls
        self._stack = AsyncExitStack()
        self.ended: dict[str, asyncio.Event] = {}

    async def __aenter__(self) -> "Held":
        await self._stack.__aenter__()
        for node, url in enumerate(self._urls):
            for number in range(STREAMS):
                await self._open(url, f"{node}-{number}")
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.__aexit__(*error)

    async def _open(self, url: str, name: str) -> None:
        token = mint({"sub": name, "mercure": {"subscribe": ["*"]}}, key=SECRET).decode()
        host, _, port = url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        self._stack.callback(writer.close)
        head = f"GET /events?topic=news HTTP/1.1\r\nHost: localhost\r\nUser-Agent: {name}\r\n"
        writer.write(f"{head}Authorization: Bearer {token}\r\n\r\n".encode())
        await reader.readuntil(b"\n\n")
        ended = self.ended[name] = asyncio.Event()

        async def read() -> None:
            while await reader.read(65_536):
                pass
            ended.set()

        task = asyncio.create_task(read())
        self._stack.callback(task.cancel)


async def asked(url: str, path: str, method: str = "GET", **parameters: str) -> Any:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        answer = await client.request(method, url + path, params=parameters, headers=OPERATOR)
        assert answer.status_code == 200, answer.text
        return answer.json()


async def agents(url: str, **parameters: str) -> list[str]:
    """The agents of all pages, in order."""
    found, after = [], None
    while True:
        more = {} if after is None else {"after": after}
        page = await asked(url, "/admin/connections", limit="2", **parameters, **more)
        assert page["missing"] == []
        found += [row["agent"] for row in page["connections"]]
        after = page["next"]
        if after is None:
            return found


async def known(urls: list[str], nodes: int = 3) -> None:
    """Returns when each of these nodes sees the streams of all."""
    async with asyncio.timeout(60):
        for url in urls:
            while len(await agents(url)) != STREAMS * nodes:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def test_every_node_lists_and_ends_the_streams_of_all(three: list[str]) -> None:
    async with Held(three) as held:
        await known(three)
        for url in three:
            everyone = await agents(url)
            assert sorted(everyone) == sorted(held.ended)  # Each once, over all pages.
            assert await agents(url, subject="1-2") == ["1-2"]
            nodes = await asked(url, "/admin/connections", limit="500")
            assert len({row["node"] for row in nodes["connections"]}) == len(three)
            workers = await asked(url, "/admin/nodes")
            held_by = Counter[str]()
            for row in workers["workers"]:
                held_by[row["node"]] += row["connections"]
            assert list(held_by.values()) == [STREAMS] * len(three)
            assert {row["state"] for row in workers["workers"]} == {"ready"}
            assert workers["missing"] == []
        # By its id, at a node that does not have it; by its subject; and all that are left.
        (row,) = (await asked(three[0], "/admin/connections", subject="2-0"))["connections"]
        kicked = await asked(three[1], "/admin/connections", "DELETE", id=row["id"])
        assert kicked["kicked"] == 1
        kicked = await asked(three[2], "/admin/connections", "DELETE", subject="0-1")
        assert kicked["kicked"] == 1
        async with asyncio.timeout(60):
            await held.ended["2-0"].wait()
            await held.ended["0-1"].wait()
        assert sum(ended.is_set() for ended in held.ended.values()) == 2
        kicked = await asked(three[0], "/admin/connections", "DELETE", topic="news")
        assert kicked["kicked"] == STREAMS * len(three) - 2
        async with asyncio.timeout(60):
            await asyncio.gather(*(ended.wait() for ended in held.ended.values()))


async def test_a_barred_subject_is_refused_at_every_node(three: list[str]) -> None:
    async with Held(three) as held:
        await known(three)
        await asked(three[0], "/admin/connections", "DELETE", subject="2-1", bar="10m")
        async with asyncio.timeout(60):
            await held.ended["2-1"].wait()
        token = mint({"sub": "2-1", "mercure": {"subscribe": ["*"]}}, key=SECRET).decode()
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            for url in three:
                answer = await client.get(
                    f"{url}/events", params={"topic": "news", "authorization": token}
                )
                assert answer.status_code == 401


async def test_topics_and_explanations_count_the_streams_of_all_nodes(three: list[str]) -> None:
    async with Held(three):
        await known(three)
        token = mint({"mercure": {"publish": ["*"]}}, key=SECRET).decode()
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            answer = await client.post(
                f"{three[1]}/events", params={"topic": "news"}, content="x",
                headers={"Authorization": f"Bearer {token}"},
            )  # fmt: skip
            assert answer.status_code == 200
        for url in three:
            async with asyncio.timeout(60):
                while True:
                    (row,) = (await asked(url, "/admin/topics", topic="news"))["topics"]
                    if row["events"]:
                        break
                    await asyncio.sleep(0.05)
            assert row["subscribers"] == STREAMS * len(three)
            question = Question(
                f"{url}/events", "news", operator=OPERATOR["Authorization"].removeprefix("Bearer "),
                token=token, tries_path=False,
            )  # fmt: skip
            checks = {check.name: check async for check in why(question)}
            assert checks["streams"].says.startswith(f"{STREAMS * len(three)} streams")


async def test_a_node_that_does_not_answer_is_named(redis: RedisServer) -> None:
    options: dict[str, Any] = {"jwt_key": SECRET}
    async with (
        cluster.doomed(redis.url, **options) as stuck,
        cluster.node(redis.url, **options) as here,
        Held([stuck.url, here]),
    ):
        await known([here], nodes=2)
        stuck.process.send_signal(signal.SIGSTOP)
        page = await asked(here, "/admin/connections")
        assert [row["agent"][0] for row in page["connections"]] == ["1"] * STREAMS
        assert len(page["missing"]) == 1
        assert page["missing"][0].startswith("node ")
        assert (await asked(here, "/admin/nodes"))["missing"] == page["missing"]
