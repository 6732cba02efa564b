"""The authorization callback: it decides who may subscribe and publish, and fails closed."""

import asyncio
import base64
import json
import time
from typing import Any

import httpx
import pytest

from fastsse.api import authorization
from fastsse.client import listen
from fastsse.config import Config, ConfigError
from fastsse.outbound import Signer
from fastsse.server import Server
from tests.loopback import LoopbackServer
from tests.outbound.test_outbound import answer

SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
KEY = "a secret that is long enough for HS256, which needs 32 bytes"


class Decider(LoopbackServer):
    """Allows the topics that are open; answers with `raw` instead, if that is set.

    Attributes:
        questions: their bodies; each was signed.
        gate: cleared, it answers nothing.
    """

    def __init__(self, *topics: str) -> None:
        super().__init__()
        self.open = set(topics)
        self.questions: list[dict[str, Any]] = []
        self.raw: bytes | None = None
        self.more: dict[str, Any] = {}
        self.gate = asyncio.Event()
        self.gate.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
            fields = {name.lower(): value for name, value in (one.split(": ", 1) for one in head)}
            body = await reader.readexactly(int(fields["content-length"]))
            Signer([SECRET]).verify(fields, body, time.time())
            question = json.loads(body)
            self.questions.append(question)
            await self.gate.wait()
            allow = set(question["topics"]) <= self.open
            said = json.dumps({"allow": allow, **self.more}).encode()
            writer.write(self.raw or answer(200, said))
            await writer.drain()


def config(decider: Decider, **options: Any) -> Config:
    given = {"authorize_url": decider.url, "authorize_secrets": [SECRET], "authorize_timeout": "9s"}
    return Config(
        port=0,
        outbound_networks=["127.0.0.0/8"],
        drain="0s",
        access_lines=0,
        **{**given, **options},
    )


async def ask(server: Server, method: str, path: str, **more: Any) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        return await client.request(method, server.addresses[0] + path, **more)


async def post(server: Server, topic: str, **more: Any) -> httpx.Response:
    return await ask(server, "POST", f"/events?topic={topic}", content=b"x", **more)


async def test_only_allowed_topics_are_read_and_published_to_by_every_route() -> None:
    async with Decider("a", "b") as decider, Server(config(decider)) as server:
        url = server.addresses[0]
        async with listen(url, ["a", "b"]) as events:
            for _ in range(3):
                assert (await post(server, "a")).status_code == 200
            assert (await anext(events)).data == "x"
        for path in ("/events?topic=a&topic=c", "/events?topic=c&wait=0", "/events?topic=*&wait=0",
                     "/.well-known/mercure?topic=c", "/streams/c"):  # fmt: skip
            refused = await ask(server, "GET", path)
            assert refused.status_code == 403, path
            assert refused.json()["detail"] == "The authorization callback does not allow this."
        lines = b'{"topic":"a","data":"1"}\n{"topic":"c","data":"2"}\n'
        form = {
            "content": b"topic=c&data=x",
            "headers": {"content-type": "application/x-www-form-urlencoded"},
        }
        ndjson = {"content": lines, "headers": {"content-type": "application/x-ndjson"}}
        for method, path, given in (
            ("POST", "/events?topic=c", {"content": b"x"}),
            ("POST", "/events", ndjson),
            ("POST", "/events?stream=true", ndjson),
            ("POST", "/.well-known/mercure", form),
            ("PUT", "/streams/c", {"headers": {"content-type": "text/plain"}}),
            ("POST", "/topics/end?topic=c", {}),
            ("DELETE", "/topics?topic=c", {}),
            ("POST", "/events?topic=c&delay=1h", {"content": b"x"}),
        ):
            refused = await ask(server, method, path, **given)
            assert refused.status_code == 403, (method, path, refused.text)
        page = await ask(server, "GET", "/events?topic=a&wait=0&since=earliest")
        # Of the streamed body the line before the refused one was published, as for tokens.
        assert [one["data"] for one in page.json()["events"]] == ["x", "x", "x", "1"]


async def test_an_answer_is_asked_for_once_a_client_operation_and_topic_while_it_holds() -> None:
    options = {"jwt_key": KEY, "authorize_headers": ["Cookie"]}
    tokens = [token(subject) for subject in ("ann", "bob")]
    async with Decider("a", "b") as decider, Server(config(decider, **options)) as server:
        for _ in range(5):
            for one in tokens:
                headers = {"authorization": f"Bearer {one}", "cookie": "session=1"}
                assert (await post(server, "a", headers=headers)).status_code == 200
                got = await ask(server, "GET", "/events?topic=a&topic=b&wait=0", headers=headers)
                assert got.status_code == 200
        asked = [(one["operation"], one["subject"], one["topics"]) for one in decider.questions]
        assert asked == [
            ("publish", "ann", ["a"]),
            ("subscribe", "ann", ["a", "b"]),
            ("publish", "bob", ["a"]),
            ("subscribe", "bob", ["a", "b"]),
        ]
        assert decider.questions[0]["payload"] == {"team": "red"}
        assert decider.questions[0]["headers"] == {"cookie": "session=1"}
        # Another cookie is another client; what is known of a part of the topics is not asked.
        headers = {"authorization": f"Bearer {tokens[0]}", "cookie": "session=2"}
        assert (await post(server, "a", headers=headers)).status_code == 200
        headers["cookie"] = "session=1"
        decider.open.add("c")
        got = await ask(server, "GET", "/events?topic=a&topic=c&wait=0", headers=headers)
        assert got.status_code == 200
        assert [one["topics"] for one in decider.questions[4:]] == [["a"], ["c"]]


def token(subject: str) -> str:
    import jwt

    mercure = {"publish": ["*"], "subscribe": ["*"], "payload": {"team": "red"}}
    return jwt.encode({"sub": subject, "mercure": mercure}, KEY, "HS256")


async def test_answers_hold_no_longer_than_they_say() -> None:
    async with Decider("a") as decider, Server(config(decider)) as server:
        decider.more = {"ttl": 0}
        for _ in range(3):
            assert (await post(server, "a")).status_code == 200
        assert len(decider.questions) == 3
        decider.more = {"reason": "not yours"}
        for _ in range(3):
            assert (await post(server, "b")).json()["detail"] == "not yours"
        assert len(decider.questions) == 4


@pytest.mark.parametrize(
    "raw",
    [
        answer(500),
        answer(302, b"", "Location: /"),
        answer(200, b"yes"),
        answer(200, b"{}"),
        answer(200, b'{"allow": 1}'),
        answer(200, b'{"allow": true, "ttl": -1}'),
        answer(200, b'{"allow": true, "ttl": "long"}'),
        answer(200, b" " * 100_000),
    ],
)
async def test_without_a_valid_answer_no_client_may(raw: bytes) -> None:
    async with Decider("a") as decider, Server(config(decider)) as server:
        decider.raw = raw
        refused = await post(server, "a")
        assert (refused.status_code, refused.json()["reason"]) == (503, "authorize")
        assert refused.headers["retry-after"] == "1"
        # An EventSource must not give up: it gets a time to return.
        opened = await ask(server, "GET", "/events?topic=a")
        assert (opened.status_code, b"fastsse.refused" in opened.content) == (200, True)
        assert b'"reason":"access"' in opened.content
        polled = await ask(server, "GET", "/events?topic=a&wait=0")
        assert polled.status_code == 503
        decider.raw = None
        assert (await post(server, "a")).status_code == 200


async def test_a_callback_that_is_late_or_away_refuses_at_its_deadline() -> None:
    async with Decider("a") as decider:
        decider.gate.clear()
        async with Server(config(decider, authorize_timeout="100ms")) as server:
            refused = await post(server, "a")
            assert (refused.status_code, refused.json()["reason"]) == (503, "authorize")
            counters = server._worker.frontend.counters()
            assert counters["authorize_failed"] == 1
        given = config(decider, authorize_url="http://127.0.0.1:1/")
    async with Server(given) as server:
        assert (await post(server, "a")).status_code == 503


async def test_equal_questions_share_one_and_others_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(authorization, "WAITING_MAX", 1)
    async with Decider("a") as decider, Server(config(decider)) as server:
        decider.gate.clear()
        waiting = [asyncio.create_task(post(server, "a")) for _ in range(10)]
        async with asyncio.timeout(20):
            while not decider.questions:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await post(server, "b")).status_code == 503
        decider.gate.set()
        answers = await asyncio.gather(*waiting)
        assert {one.status_code for one in answers} == {200}
        assert len(decider.questions) == 1
        assert server._worker.frontend.counters()["authorize_full"] == 1


async def test_answers_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authorization, "KEPT_MAX", 10)
    topics = [f"t{n}" for n in range(30)]
    async with Decider(*topics) as decider, Server(config(decider)) as server:
        for topic in topics:
            assert (await post(server, topic)).status_code == 200
        kept = server._worker.frontend._endpoints._authorization._kept
        assert len(kept) == 10


async def test_operations_that_are_not_asked_about_are_decided_by_tokens_alone() -> None:
    options = {"authorize_operations": ["subscribe"]}
    async with Decider() as decider, Server(config(decider, **options)) as server:
        assert (await post(server, "a")).status_code == 200
        assert (await ask(server, "GET", "/events?topic=a&wait=0")).status_code == 403


@pytest.mark.parametrize(
    ("options", "said_of"),
    [
        ({"authorize_url": "ftp://x/"}, "authorize_url"),
        ({"authorize_url": "http://x/"}, "authorize_secrets"),
        ({"authorize_cache": "1m"}, "authorize_cache"),
        ({"authorize_url": "http://x/", "authorize_secrets": ["hidden"]}, "authorize_secrets"),
        (
            {
                "authorize_url": "http://x/",
                "authorize_secrets": [SECRET],
                "authorize_headers": ["Host"],
            },
            "authorization, cookie",
        ),
        (
            {
                "authorize_url": "http://x/",
                "authorize_secrets": [SECRET],
                "authorize_timeout": "0s",
            },
            "authorize_timeout",
        ),
        (
            {
                "authorize_url": "http://x/",
                "authorize_secrets": [SECRET],
                "authorize_operations": ["read"],
            },
            "authorize_operations",
        ),
    ],
)
def test_options_that_can_t_be_are_refused_by_name(options: dict[str, Any], said_of: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**options)
    assert said_of in str(caught.value)
    assert "hidden" not in str(caught.value)
