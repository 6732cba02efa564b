"""Hooks: receivers know which topics have subscribers, and which streams are open."""

import asyncio
import base64
import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

import fastsse
from fastsse.client import listen
from fastsse.config import Config, ConfigError
from fastsse.control.feeds import REPORTED_MAX
from fastsse.hooks import outlet, service
from fastsse.outbound import Signer
from fastsse.server import Server
from tests.outbound.test_outbound import Receiver, answer

SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
TIMEOUT_S = 20


def rule(receiver: Receiver, **more: Any) -> dict[str, Any]:
    given = {"name": "demand", "url": receiver.url, "secrets": [SECRET], "linger": "0s"}
    return {**given, "node": "n1", **more}


def config(*rules: dict[str, Any], **more: Any) -> Config:
    return Config(
        port=0, hooks=rules, outbound_networks=["127.0.0.0/8"], access_lines=0, drain="0s", **more
    )


def notices(receiver: Receiver) -> list[dict[str, Any]]:
    """What a receiver knows; each request is signed."""
    signer, found = Signer([SECRET]), []
    for head, body in zip(receiver.heads, receiver.bodies, strict=True):
        signer.verify(head, body, time.time())
        message = json.loads(body)
        assert (message["type"], message["node"]) == ("fastsse.hooks", "n1")
        found += message["data"]
    return found


def said(receiver: Receiver) -> list[tuple[str, str | None]]:
    return [(one["hook"], one.get("topic")) for one in notices(receiver)]


async def until(is_so: Callable[[], Any]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def counts(server: Server) -> dict[str, int]:
    return server._worker._stream_hooks.counters()


async def test_first_and_last_subscriber_of_each_topic_are_reported_once() -> None:
    async with Receiver(answer(204)) as receiver:
        async with Server(config(rule(receiver, on=["first", "last"]))) as server:
            url = server.addresses[0]
            async with listen(url, "a"), listen(url, ["a", "b/{x}"]):
                await until(lambda: len(said(receiver)) == 3)
                async with listen(url, "a"):
                    pass
            await until(lambda: len(said(receiver)) == 5)
        found = said(receiver)
    assert found[0] == ("start", None)
    assert sorted(found[1:3]) == [("first", "a"), ("first", "b/{x}")]
    assert sorted(found[3:5]) == [("last", "a"), ("last", "b/{x}")]
    assert found[5:] == [("stop", None)]


async def test_streams_are_reported_with_their_client_and_what_they_were_sent() -> None:
    async with Receiver(answer(204)) as receiver:
        given = rule(receiver, on=["connect", "disconnect"], topics=["a/{n}"])
        async with Server(config(given)) as server:
            url = server.addresses[0]
            async with listen(url, "other"), listen(url, ["other", "a/1"]) as events:
                server.publish("a/1", "x")
                await anext(events)
            await until(lambda: len(notices(receiver)) == 3)
        _, opened, ended, _ = notices(receiver)
    assert (opened["hook"], opened["client"]) == ("connect", "127.0.0.1")
    assert sorted(opened["topics"]) == ["a/1", "other"]
    assert ended["hook"] == "disconnect"
    assert ended["stream"] == opened["stream"]
    assert ended["events_sent"] >= 1
    assert ended["bytes_sent"] > 0
    assert ended["reason"]


async def test_stream_of_a_feed_is_reported_with_its_first_thousand_topics() -> None:
    topics = [f"a/{n:04}" for n in range(REPORTED_MAX + 1)]
    async with Receiver(answer(204)) as receiver:
        async with Server(config(rule(receiver))) as server:
            async with listen(server.addresses[0], topics) as events:
                server.publish(topics[-1], "x")
                assert (await anext(events)).data == "x"
                await until(lambda: len(notices(receiver)) == len(topics) + 2)
            await until(lambda: len(notices(receiver)) == 2 * len(topics) + 3)
        found = notices(receiver)
    (opened,) = [one for one in found if one["hook"] == "connect"]
    assert opened["topics"] == topics[:-1]
    for hook in ("first", "last"):
        assert sorted(one["topic"] for one in found if one["hook"] == hook) == topics


async def test_topic_that_has_a_subscriber_again_within_linger_is_not_reported() -> None:
    async with Receiver(answer(204)) as receiver:
        given = rule(receiver, on=["first", "last"], linger="1h")
        async with Server(config(given)) as server:
            url = server.addresses[0]
            for _ in range(3):
                async with listen(url, "a"):
                    await until(lambda: len(said(receiver)) == 2)
                await until(lambda: server.stream_count == 0)
            async with listen(url, "b"):
                await until(lambda: len(said(receiver)) == 3)
        assert said(receiver) == [
            ("start", None), ("first", "a"), ("first", "b"), ("stop", None)
        ]  # fmt: skip


async def test_receiver_that_was_away_is_sent_the_state_and_not_each_change() -> None:
    receiver = Receiver(answer(204), answer(503))
    async with receiver, Server(config(rule(receiver, on=["first", "last"]))) as server:
        url = server.addresses[0]
        await until(lambda: len(receiver.bodies) == 1)
        async with listen(url, "a"):
            await until(lambda: counts(server)["hook_failures"] >= 1)
            for _ in range(5):
                async with listen(url, "b"):
                    pass
                await until(lambda: server.stream_count == 1)
            async with listen(url, "c"):
                receiver.answers[:] = [answer(204)]
                await until(lambda: ("first", "c") in said(receiver))
    # The request that was refused was sent again, unchanged.
    found = said(receiver)
    assert found.count(("first", "a")) >= 2
    assert ("first", "b") not in found
    assert ("last", "b") not in found


async def test_queue_of_a_receiver_that_is_away_is_bounded_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outlet, "QUEUE_BYTES_MAX", 1_000)
    monkeypatch.setattr(service, "TOPICS_BYTES_MAX", 2_000)
    receiver = Receiver(answer(204), answer(503))
    async with receiver, Server(config(rule(receiver))) as server:
        await until(lambda: len(receiver.bodies) == 1)
        for number in range(20):
            async with listen(server.addresses[0], f"t{number}"):
                pass
        await until(lambda: counts(server)["hook_dropped"] >= 20)


async def test_refused_request_is_not_sent_again_and_counted() -> None:
    async with Receiver(answer(204), answer(400), answer(204)) as receiver:
        async with Server(config(rule(receiver, on=["first", "last"]))) as server:
            await until(lambda: len(receiver.bodies) == 1)
            async with listen(server.addresses[0], "a"):
                await until(lambda: counts(server)["hook_given_up"] == 1)
            await until(lambda: ("last", "a") in said(receiver))
        assert said(receiver).count(("first", "a")) == 1


async def test_handlers_of_a_server_start_and_stop_a_producer_by_demand() -> None:
    server = Server(config())
    seen: list[tuple[str, str | None]] = []
    producing: dict[str, asyncio.Task[None]] = {}

    async def produce(topic: str) -> None:
        while True:
            server.publish(topic, "tick")
            await asyncio.sleep(0.01)

    @server.on_stream("first", "last", topics=["prices/{symbol}"], linger=0)
    async def demand(hook: fastsse.StreamHook) -> None:
        seen.append((hook.hook, hook.topic))
        assert hook.topic is not None
        if hook.hook == "first":
            producing[hook.topic] = asyncio.create_task(produce(hook.topic))
        else:
            producing.pop(hook.topic).cancel()

    @server.on_stream("connect")
    def broken(hook: fastsse.StreamHook) -> None:
        raise ValueError(hook.stream)

    async with server:
        async with listen(server.addresses[0], "prices/x") as events:
            assert (await anext(events)).data == "tick"
        await until(lambda: len(seen) == 2)
        assert not producing
        assert counts(server)["hook_failures"] == 1
        with pytest.raises(RuntimeError):
            server.on_stream("first")
    assert seen == [("first", "prices/x"), ("last", "prices/x")]
    with pytest.raises(ValueError, match="no hook"):
        server.on_stream("sometimes")(demand)


async def read(url: str) -> None:
    """A subscriber that returns when its stream ends."""
    async with listen(url, "a") as events:
        async for _ in events:
            pass


async def test_first_and_last_are_of_the_node_whatever_worker_a_stream_is_at(serve: Any) -> None:
    async with Receiver(answer(204)) as receiver:

        def hooks(name: str, after: int = 0) -> list[dict[str, Any]]:
            return [one for one in notices(receiver)[after:] if one["hook"] == name]

        options = ("--hooks", json.dumps([rule(receiver)]), "--outbound-networks", "127.0.0.0/8")
        node = await serve("--workers", "2", *options)
        readers = [asyncio.create_task(read(node.url)) for _ in range(8)]
        await until(lambda: len(hooks("connect")) == 8)
        assert len(hooks("first")) == 1
        # The streams of a killed worker end; its clients return.
        os.kill(node.children()["worker"][0], signal.SIGKILL)
        await until(lambda: hooks("disconnect"))
        await until(lambda: len(hooks("connect")) - len(hooks("disconnect")) == 8)
        # A hub that was killed knows nothing: the node says so, and all is sent again.
        before = len(notices(receiver))
        os.kill(node.children()["hub"][0], signal.SIGKILL)
        await until(lambda: len(hooks("connect", before)) == 8)
        assert notices(receiver)[before]["hook"] == "start"
        assert len(hooks("first", before)) == 1
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        await until(lambda: hooks("last", before))
        await until(lambda: len(hooks("disconnect", before)) == 8)


@pytest.mark.parametrize(
    ("options", "said_of"),
    [
        ({"hooks": [{"name": "a", "url": "http://x/", "secrets": []}]}, "hooks[0].secrets"),
        ({"hooks": [{"name": "a", "url": "x", "secrets": [SECRET]}]}, "hooks[0].url"),
        (
            {"hooks": [{"name": "a", "url": "http://x/", "secrets": [SECRET], "on": ["open"]}]},
            "connect, disconnect, first, last",
        ),
        (
            {"hooks": [{"name": "a", "url": "http://x/", "secrets": [SECRET], "linger": "2d"}]},
            "hooks[0].linger",
        ),
        ({"hooks": [{"name": "a", "url": "http://x/", "secrets": [SECRET]}] * 2}, "other hooks"),
        (
            {"hooks": [{"name": "a", "url": "http://x/", "secrets": [SECRET], "colour": 1}]},
            "colour",
        ),
    ],
)
def test_a_hook_that_can_t_be_is_refused_by_name(options: dict[str, Any], said_of: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**options)
    assert said_of in str(caught.value)
    assert SECRET not in str(caught.value)
