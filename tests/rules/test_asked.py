"""What a publisher asks of an event holds when a rule moves, copies or drops it: a repeat is stored
once, topics end, and events expire."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from fastsse.config import Config
from fastsse.server import Server
from tests.redis import cluster
from tests.sources.flows import SOURCES, until_metric

RULES = [
    {"name": "m", "action": "move", "topics": ["mv/{x}"], "publish": "moved"},
    {"name": "c", "action": "copy", "topics": ["cp/{x}"], "publish": "copied"},
    {"name": "d", "action": "drop", "topics": ["dr/{x}"]},
    {"name": "x", "action": "drop", "topics": ["some/{x}"], "when": 'data == "x"'},
    {
        "name": "y",
        "action": "move",
        "topics": ["some/{x}"],
        "when": 'data == "y"',
        "publish": "moved",
    },
]
TOPICS = ["mv/1", "cp/1", "dr/1", "moved", "copied", "t"]
TEXT = {"Content-Type": "text/plain"}


class Api:
    """Requests to a server."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def post(self, topic: str, data: str = "x", **query: Any) -> dict[str, Any]:
        headers = {"Idempotency-Key": query.pop("request")} if "request" in query else {}
        params = {"topic": topic, **query}
        answer = await self.client.post("/events", params=params, content=data, headers=headers)
        assert answer.status_code in (200, 202), answer.text
        return answer.json()

    async def lines(self, request: str, *events: dict[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": request}
        body = "\n".join(map(json.dumps, events))
        answer = await self.client.post("/events", content=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def kept(self, *topics: str) -> list[tuple[str, Any]]:
        params = {"topic": list(topics or TOPICS), "wait": "0"}
        kept: list[tuple[str, Any]] = []
        after = "earliest"
        while True:
            page = {**params, "last_event_id": after}
            found = (await self.client.get("/events", params=page)).json()
            if not found["events"]:
                return kept
            kept += [(event["topic"], event["data"]) for event in found["events"]]
            after = found["next"]

    async def has_ended(self, topic: str) -> bool:
        answer = await self.client.post("/events", params={"topic": topic}, content="later")
        return answer.status_code == 409


@pytest.fixture(params=["memory", "sqlite", "workers"])
async def api(request: pytest.FixtureRequest, tmp_path: Any) -> AsyncIterator[Api]:
    if request.param == "workers":
        file = tmp_path / "fastsse.toml"
        file.write_text("".join(f"[[rules]]\n{_toml(rule)}" for rule in RULES))
        process = cluster.process("memory", "--config", str(file), "--workers", "2")
        async with process as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
            yield Api(client)
        return
    store = "memory" if request.param == "memory" else f"sqlite:{tmp_path}/h.db"
    async with AsyncExitStack() as stack:
        config = Config(port=0, drain=0, rules=RULES, store=store)
        server = await stack.enter_async_context(Server(config))
        client = httpx.AsyncClient(base_url=server.addresses[0], trust_env=False)
        yield Api(await stack.enter_async_context(client))


def _toml(rule: dict[str, Any]) -> str:
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in rule.items())


async def test_a_repeat_with_a_key_is_moved_and_copied_once(api: Api) -> None:
    for key, topic, other in (("k1", "mv/1", ["moved"]), ("k2", "cp/1", ["cp/1", "copied"])):
        first = await api.post(topic, "once", key=key)
        again = await api.post(topic, "once", key=key)
        assert again == {"id": first["id"], "duplicates": 1}
        assert await api.kept() == [(name, "once") for name in other]
        await api.client.delete("/topics", params={"topic": other[0]})


async def test_a_repeat_of_a_request_is_stored_once_whatever_its_first_event_became(
    api: Api,
) -> None:
    for request, topic in (("r1", "mv/1"), ("r2", "cp/1"), ("r3", "dr/1")):
        assert await api.post(topic, request=request) == await api.post(topic, request=request)
    assert await api.kept() == [("moved", "x"), ("cp/1", "x"), ("copied", "x")]
    batch = [
        {"topic": "dr/1", "data": "0"},
        {"topic": "t", "data": "1"},
        {"topic": "cp/1", "data": "2"},
    ]
    first = await api.lines("r4", *batch)
    assert await api.lines("r4", *batch) == first
    assert (await api.kept())[3:] == [("t", "1"), ("cp/1", "2"), ("copied", "2")]


async def test_repeats_within_a_batch_are_counted_without_their_copies(api: Api) -> None:
    await api.post("cp/1", "0", key="0")
    lines = [{"topic": "cp/1", "data": str(n), "key": str(n)} for n in (0, 1, 2, 1)]
    answer = await api.client.post(
        "/events",
        content="\n".join(map(json.dumps, lines)),
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert (answer.json()["count"], answer.json()["duplicates"]) == (4, 2)
    assert await api.kept("cp/1") == [("cp/1", str(n)) for n in range(3)]
    assert await api.kept("copied") == [("copied", str(n)) for n in range(3)]


async def test_topics_of_a_moved_and_of_a_dropped_event_end(api: Api) -> None:
    for topic in ("mv/1", "dr/1", "cp/1"):
        await api.post(topic, "last", end="true")
        params = {"topic": topic, "since": "earliest"}
        async with asyncio.timeout(20):
            text = (await api.client.get("/events", params=params)).text
        assert "event: fastsse.end\n" in text
        assert f'{{"topic":"{topic}"}}' in text
    assert await api.has_ended("cp/1")
    assert not await api.has_ended("moved")
    assert not await api.has_ended("copied")


async def test_a_moved_event_expires(api: Api) -> None:
    await api.post("mv/1", "soon", ttl="200ms")
    await api.post("mv/1", "stays")
    await asyncio.sleep(0.3)
    assert await api.kept() == [("moved", "stays")]


async def test_a_delayed_event_that_is_dropped_is_accepted(api: Api) -> None:
    assert (await api.post("dr/1", delay="1s"))["scheduled"] == ""
    assert (await api.client.get("/schedule")).json()["scheduled"] == []


async def test_appends_that_a_rule_drops_moves_or_copies_are_answered(api: Api) -> None:
    for topic, content in (("dr/1", ""), ("mv/1", ""), ("cp/1", "abc")):
        made = await api.client.put(f"/streams/{topic}", headers=TEXT, content="a")
        body = TEXT | {"Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": "0"}
        appends = [
            await api.client.post(f"/streams/{topic}", headers=body, content="b") for _ in range(2)
        ]
        last = TEXT | {"Stream-Closed": "true"}
        closed = await api.client.post(f"/streams/{topic}", headers=last, content="c")
        assert (made.status_code, closed.status_code) == (201, 204)
        assert [answer.is_success for answer in appends] == [True, True]
        read = await api.client.get(f"/streams/{topic}")
        assert (read.text, read.headers["Stream-Closed"]) == (content, "true")
    assert [data for _, data in await api.kept("copied")] == ["a", "b", "c"]
    assert [data for _, data in await api.kept("moved")] == ["a", "b", "c"]


async def test_a_producer_goes_on_after_an_append_that_a_rule_drops_or_moves(api: Api) -> None:
    async def append(data: str, number: int, epoch: int = 0, **more: str) -> httpx.Response:
        numbers = {"Producer-Epoch": str(epoch), "Producer-Seq": str(number)}
        headers = TEXT | {"Producer-Id": "p"} | numbers | more
        return await api.client.post("/streams/some/1", headers=headers, content=data)

    await api.client.put("/streams/some/1", headers=TEXT)
    for _ in range(2):  # The second time all are repeats.
        for number, data in enumerate("xabxxycx"):
            answer = await append(data, number)
            assert answer.is_success, (data, answer.status_code, answer.headers)
    assert (await append("x", 9)).status_code == 409
    assert (await append("x", 0, epoch=1)).is_success
    assert (await append("x", 8)).status_code == 403
    assert (await append("x", 1, 1, **{"Stream-Closed": "true"})).is_success
    read = await api.client.get("/streams/some/1")
    assert (read.text, read.headers["Stream-Closed"]) == ("abc", "true")
    assert await api.kept("some/1", "moved") == [
        ("some/1", "a"), ("some/1", "b"), ("moved", "y"), ("some/1", "c"),
    ]  # fmt: skip
    assert [data for _, data in await api.kept("*")] == ["a", "b", "y", "c"]


async def test_lines_that_a_source_reads_again_are_moved_and_copied_once(tmp_path: Any) -> None:
    lines, place, store = tmp_path / "app.log", tmp_path / "places.json", f"sqlite:{tmp_path}/h.db"
    source = {"name": "s", "files": [str(lines)], "place": str(place), "topic": "cp/1"}
    second = {"name": "e", "action": "move", "topics": ["cp/{x}"], "publish": "moved"}

    async def read(seen: int, count: int, repeats: int) -> None:
        options: Any = {"sources": [source], "rules": [RULES[1], second], "store": store}
        async with Server(Config(port=0, drain=0, **options)) as server:
            url = server.addresses[0]
            await until_metric(url, f'{SOURCES}{{what="repeats"}}', repeats)
            async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
                api = Api(client)
                await until_metric(url, f'{SOURCES}{{what="events"}}', count - seen)
                numbers = [str(number) for number in range(count)]
                assert [data for _, data in await api.kept("moved")] == numbers
                assert [data for _, data in await api.kept("copied")] == numbers

    lines.write_text("0\n")
    await read(0, 1, 0)
    before = place.read_bytes()
    lines.write_text("".join(f"{number}\n" for number in range(20)))
    await read(1, 20, 0)
    place.write_bytes(before)  # As after a kill before it was written.
    await read(20, 20, 19)
