"""Each cause of the decision tree in docs/guides/nothing-arrives.md, found by `fastsse why`."""

import asyncio
import json
import subprocess
import time
from contextlib import AsyncExitStack, suppress
from typing import Any

import httpx
import pytest

from fastsse.checks import NOTE, OK, WRONG
from fastsse.server import Server
from tests.auth.minting import SECRET, mint
from tests.cli.commandline import command, environment
from tests.doctor.asking import asked, config, first_wrong, found, held, token
from tests.streamserver import StreamServer, answering

# ── 1 and 2: does the server answer, does the stream open ─────────────────────────────────────


async def test_nothing_listens() -> None:
    wrong = first_wrong(await asked("http://127.0.0.1:1/events"))
    assert (wrong.name, "connection refused" in wrong.says) == ("reach", True)


OPENINGS: list[tuple[str, dict[str, Any], str, dict[str, Any], str, str]] = [
    # what, options, path, question, the first thing that is wrong, what is to be done
    ("another path", {}, "/sse", {}, "path", "/events"),
    ("a prefix", {}, "/app/events", {}, "path", "prefix"),
    ("a mistyped value", {}, "/events?topic=a&last=x", {}, "parameters", "last"),
    ("no topic", {}, "/events?last=1", {"topic": ""}, "parameters", "topic"),
    ("no token", {"jwt_key": SECRET}, "/events", {}, "token", "token mint"),
    ("another key", {"jwt_key": SECRET}, "/events", {"token": "x.y.z"}, "token", "token explain"),
    (
        "an expired token",
        {"jwt_key": SECRET},
        "/events",
        {"token": token(exp=int(time.time()) - 60)},
        "token",
        "token explain",
    ),
    ("full", {"max_connections": 1}, "/events", {}, "capacity", "max_connections"),
    (
        "full, with a status",
        {"max_connections": 1},
        "/events?topic=a&refuse=status",
        {},
        "capacity",
        "max_connections",
    ),
    ("a limit", {"address_streams": 1}, "/events", {}, "capacity", "address_streams"),
    ("another origin", {}, "/events", {"origin": "https://a.example"}, "origin", "--cors-origins"),
]


@pytest.mark.parametrize(
    ("options", "path", "question", "name", "do"),
    [case[1:] for case in OPENINGS],
    ids=[case[0] for case in OPENINGS],
)
async def test_a_stream_that_does_not_open(
    options: dict[str, Any], path: str, question: dict[str, Any], name: str, do: str
) -> None:
    async with Server(config(**options)) as server, AsyncExitStack() as stack:
        url = server.addresses[0]
        if name == "capacity":
            await held(stack, url)
        checks = await asked(url + path, **question)
    wrong = first_wrong(checks)
    assert wrong.name == name, checks
    assert do in wrong.do or do in wrong.says


async def test_an_ended_topic_and_unknown_parameters_and_gaps() -> None:
    async with Server(config(history_events=1)) as server:
        url = f"{server.addresses[0]}/events"
        notes = await asked(f"{url}?topic=news&lst=1")
        assert "lst" in found(notes, "parameters").says
        first = server.publish("news", "1")
        for data in "234":
            server.publish("news", data)
        gap = found(await asked(url, event_id=first), "resume")
        assert (gap.verdict, "evicted" in gap.says) == (NOTE, True)


async def test_an_ended_topic_takes_nothing_and_a_client_that_has_all_gets_204() -> None:
    async with Server(config()) as server:
        url = f"{server.addresses[0]}/events"
        server.publish("news", "x")
        async with httpx.AsyncClient(trust_env=False) as client:
            ended = await client.post(f"{server.addresses[0]}/topics/end", params={"topic": "news"})
        state = first_wrong(await asked(url))
        assert (state.name, "has ended" in state.says) == ("state", True)
        over = first_wrong(await asked(url, event_id=ended.json()["id"]))
        assert (over.name, "204" in over.says) == ("over", True)


async def test_a_topic_without_history_is_noted() -> None:
    async with Server(config(history_events=0)) as server, AsyncExitStack() as stack:
        url = server.addresses[0]
        server.publish("other", "x")
        await held(stack, url)
        checks = await asked(f"{url}/events", "other")
    history = found(checks, "history")
    assert (history.verdict, "history_events" in history.do) == (NOTE, True)


async def test_the_state_of_the_service_comes_before_that_of_the_topic() -> None:
    async with Server(config(max_event="10B")) as server, AsyncExitStack() as stack:
        url = server.addresses[0]
        server.publish("other", "x")
        await held(stack, url)
        async with httpx.AsyncClient(trust_env=False) as client:
            for _ in range(12):
                await client.get(f"{url}/events?topic=", headers={"Host": "evil.example"})
        checks = await asked(f"{url}/events", "other")
    names = [check.name for check in checks]
    assert names.index("requests") < names.index("topic name")
    assert "421" in found(checks, "requests").says
    assert "--allowed-hosts" in found(checks, "requests").do


async def test_a_server_that_stops_says_so() -> None:
    busy = answering("503 Service Unavailable", b"draining\n", b"Content-Type: text/plain\r\n")
    async with StreamServer(busy) as server:
        wrong = first_wrong(await asked(f"{server.url}/events"))
    assert (wrong.name, "draining" in wrong.says) == ("ready", True)


# ── 3: topic, rights, publisher ───────────────────────────────────────────────────────────────


async def test_topics_that_nothing_is_published_to() -> None:
    async with Server(config()) as server:
        url = f"{server.addresses[0]}/events"
        server.publish("news", "x")
        server.publish("orders/7/lines", "x")
        mistyped = first_wrong(await asked(url, "News"))
        assert (mistyped.name, "Subscribe to news" in mistyped.do) == ("topic name", True)
        assert first_wrong(await asked(url, "never")).name == "topic name"
        template = first_wrong(await asked(url, "orders/{id}"))
        assert "{+id}" in template.do
        none = first_wrong(await asked(url, "news"))
        assert (none.name, "fastsse connections" in none.do) == ("streams", True)


async def test_private_events_need_a_grant() -> None:
    async with Server(config(jwt_key=SECRET)) as server:
        url = f"{server.addresses[0]}/events"
        server.publish("secret", "x", private=True)
        claims = {"fastsse": {"console": "read"}, "mercure": {"subscribe": ["news"]}}
        shown = mint(claims, key=SECRET).decode()
        checks = await asked(url, "secret", token=shown)
        assert found(checks, "rights").verdict == NOTE
        assert "token mint --subscribe secret" in found(checks, "rights").do
        assert found(checks, "private").verdict == NOTE
        granted = await asked(url, "news", token=shown)
        assert found(granted, "rights").verdict == "ok"
        refused = await asked(url, "news", token=token())
        assert found(refused, "server").verdict == "unknown"


async def test_event_types_lag_and_refused_publishes_are_noted() -> None:
    async with Server(config(max_event="10B", lag_policy="skip")) as server:
        url = f"{server.addresses[0]}/events"
        server.publish("news", "x", event="tick")
        async with AsyncExitStack() as stack:
            host, _, port = server.addresses[0].removeprefix("http://").partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            stack.callback(writer.close)
            writer.write(b"GET /events?topic=news HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.readuntil(b"\n\n")
            checks = await asked(url)
        assert not [check for check in checks if check.verdict == WRONG], checks
        assert 'addEventListener("tick"' in found(checks, "event type").do
        assert "skip" in found(checks, "lag policy").says


@pytest.mark.parametrize(
    ("event", "data", "name", "do"),
    [
        ("error", "x", "event type", "another type"),
        (None, "x" * 70_000, "line length", "max_event"),
    ],
)
async def test_events_that_readers_stumble_over_are_noted(
    event: str | None, data: str, name: str, do: str
) -> None:
    async with Server(config()) as server, AsyncExitStack() as stack:
        await held(stack, server.addresses[0], "news")
        server.publish("news", data, event=event)
        checks = await asked(f"{server.addresses[0]}/events")
    assert (found(checks, name).verdict, do in found(checks, name).do) == (NOTE, True)


async def test_streams_that_were_ended_lately_are_noted_with_the_reason() -> None:
    shown = mint({"fastsse": {"console": "read"}}, key=SECRET).decode()
    async with Server(config(jwt_key=SECRET)) as server:
        url = server.addresses[0]
        server.publish("news", "x")
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            given = {"Authorization": f"Bearer {token(exp=int(time.time()) + 3)}"}
            with suppress(httpx.RemoteProtocolError):  # Cut at the token's end.
                await client.get(f"{url}/events", params={"topic": "news"}, headers=given)
        ended = found(await asked(f"{url}/events", token=shown), "endings")
    assert (ended.verdict, "expired 1" in ended.says) == (NOTE, True)
    assert "/renew" in ended.do


async def test_a_preflight_that_refuses_a_header_is_wrong() -> None:
    origin = "https://a.example"
    async with Server(config(cors_origins=[origin], cors_headers=["X-Known"])) as server:
        url = f"{server.addresses[0]}/events"
        server.publish("news", "x")
        checks = await asked(url, origin=origin, headers=("X-Known", "X-Other"))
        wrong = found(checks, "preflight")
        assert (wrong.verdict, wrong.do) == (WRONG, "fastsse serve --cors-headers X-Other")
        allowed = await asked(url, origin=origin, headers=("Authorization", "x-known"))
        assert found(allowed, "preflight").verdict == OK
        for bad in (("--header", "a b", "--origin", origin), ("--header", "X-A")):
            done = await asyncio.to_thread(
                subprocess.run,
                command(("why", "--url", url, "--topic", "news", *bad)),
                capture_output=True, text=True, timeout=60, check=False, env=environment(),
            )  # fmt: skip
            assert (done.returncode, "--header" in done.stderr) == (2, True)


# ── The command ───────────────────────────────────────────────────────────────────────────────


async def test_the_command_says_the_first_thing_that_is_wrong() -> None:
    async with Server(config()) as server:
        server.publish("news", "x")

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                command(("why", "--url", server.addresses[0], "--no-path", *arguments)),
                capture_output=True, text=True, timeout=60, check=False, env=environment(),
            )  # fmt: skip

        shown = await asyncio.to_thread(run, "--topic", "News")
        assert shown.returncode == 1
        assert "First wrong: topic name. Subscribe to news" in shown.stdout
        assert shown.stderr == ""
        told = json.loads((await asyncio.to_thread(run, "--topic", "News", "--json")).stdout)
        assert told["cause"] == "topic name"
        bad = await asyncio.to_thread(run)
        assert (bad.returncode, "--topic" in bad.stderr) == (2, True)
