"""Events of a topic with the rule `private` need a grant, for every publisher and interface."""

import pytest

from fastsse.config import Config
from fastsse.server import Server
from tests.auth.minting import SECRET, grants, mint
from tests.http.raw import connected, get, request

JSON = "Content-Type: application/json"


def token(**claims: object) -> str:
    return f"Authorization: Bearer {mint(grants(**claims)).decode()}"


@pytest.mark.parametrize("how", ["live", "last=10", "last_event_id=earliest"])
async def test_public_events_of_a_private_topic_need_a_grant(how: str) -> None:
    config = Config(
        port=0, drain=0, jwt_key=SECRET, anonymous=True, topics=[{"match": "t/*", "private": True}]
    )
    publisher = token(publish=["*"])

    async def publish(server: Server) -> None:
        server.publish("t/1", "from the program")
        async with connected(server) as raw:
            for path, body in (
                ("/events?topic=t/1", b"query"),
                ("/events", b'{"topic": ["open", "t/1"], "data": "both", "private": false}'),
                ("/events", b'{"topic": "open", "data": "end"}'),
            ):
                await raw.send(request("POST", path, JSON, publisher, body=body))
                assert (await raw.answer()).status == 200

    async with Server(config) as server, connected(server) as anyone, connected(server) as bearer:
        query = "/events?topic=t/1&topic=open" + ("" if how == "live" else f"&{how}")
        if how != "live":
            await publish(server)
        await anyone.send(get(query))
        await bearer.send(get(query, token(subscribe=["t/1"])))
        streams = await anyone.stream(), await bearer.stream()
        if how == "live":
            for stream in streams:
                await stream.opening()
            await publish(server)
        texts = []
        for stream in streams:
            seen = []
            while not seen or seen[-1] != "end":
                seen.append((await stream.next()).data)
            texts.append(seen)
        assert texts == [["end"], ["from the program", "query", "both", "end"]]
