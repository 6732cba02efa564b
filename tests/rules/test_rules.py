"""Rules: events are dropped, moved, copied; alerts come once, whatever the number of workers."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from fastsse.config import Config, ConfigError
from fastsse.errors import Unavailable
from fastsse.rules.matching import Matcher, Seen
from fastsse.server import Server
from tests.auth.minting import SECRET, mint
from tests.http.raw import connected, request
from tests.redis import cluster

PLAIN = "Content-Type: text/plain"
LIMIT = {"name": "many", "action": "alert", "count": 3, "publish": "alerts", "when": 'event == "x"'}


@asynccontextmanager
async def serving(*rules: dict[str, Any], **options: Any) -> AsyncIterator[Server]:
    async with Server(Config(port=0, drain=0, rules=list(rules), **options)) as server:
        yield server


async def page(url: str, topic: str) -> list[dict[str, Any]]:
    params = {"topic": topic, "last_event_id": "earliest", "wait": "0"}
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = (await client.get(f"{url}/events", params=params)).json()
    found: list[dict[str, Any]] = answer["events"]
    return found


async def data_of(server: Server, topic: str) -> list[Any]:
    return [event["data"] for event in await page(server.addresses[0], topic)]


async def until_alerts(url: str, count: int) -> list[dict[str, Any]]:
    for _ in range(400):
        if len(found := await page(url, "alerts")) >= count:
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"{len(found)} alerts")


async def metric(url: str, name: str) -> float:
    return await cluster_metric(url, name)


async def cluster_metric(url: str, name: str) -> float:
    lines = (await cluster.get(url, "/metrics")).text.splitlines()
    return float(next(line.rsplit(" ", 1)[1] for line in lines if line.startswith(name)))


async def test_an_event_is_dropped_moved_and_copied_by_what_it_says() -> None:
    rules = (
        {"name": "a", "action": "drop", "when": 'data.level == "debug"'},
        {"name": "b", "action": "copy", "topics": ["orders/{id}"], "when": "data.n > 5",
         "publish": "audit/{data.n}", "event": "audit", "private": False},
        {"name": "c", "action": "move", "when": 'meta.tenant == "old"', "publish": "old/{topic}"},
    )  # fmt: skip
    async with serving(*rules) as server:
        await server.publish_later("logs", {"level": "debug"})
        await server.publish_later("logs", {"level": "info"})
        await server.publish_later("orders/1", {"n": 5})
        await server.publish_later("orders/1", {"n": 6})
        await server.publish_later("orders/2", {"n": 7}, meta={"tenant": "old"})
        assert await data_of(server, "logs") == [{"level": "info"}]
        assert await data_of(server, "orders/1") == [{"n": 5}, {"n": 6}]
        assert [e["event"] for e in await page(server.addresses[0], "audit/6")] == ["audit"]
        assert await data_of(server, "orders/2") == []
        assert await data_of(server, "old/orders/2") == [{"n": 7}]
        assert await data_of(server, "audit/7") == [{"n": 7}]
        url = server.addresses[0]
        assert await metric(url, 'fastsse_rule_actions_total{rule="a"}') == 1


async def test_a_rule_that_cannot_act_stops_no_event() -> None:
    rules = (
        {"name": "words", "action": "copy", "publish": "x/{data.missing}"},
        {"name": "types", "action": "drop", "when": 'data.n > "text" && data.n.a.b == 1'},
        {"name": "ours", "action": "move", "when": "event == \"m\"", "publish": "{data.to}"},
        {**LIMIT, "by": "{data.who}", "count": 1},
    )  # fmt: skip
    async with serving(*rules) as server:
        url = server.addresses[0]
        for data in ({"n": 1}, "text", {"to": "/.well-known/mercure/x"}, {"to": "a\nb"}):
            await server.publish_later("t", data, event="m")
        await server.publish_later("t", "x", event="x")
        assert len(await data_of(server, "t")) == 5
        assert await metric(url, 'fastsse_rule_failures_total{rule="words"}') == 5
        assert await metric(url, 'fastsse_rule_failures_total{rule="many"}') == 1


async def test_an_alert_comes_when_more_than_so_many_match_and_once_a_window() -> None:
    async with serving({**LIMIT, "by": "{data.who}"}) as server:
        url = server.addresses[0]
        for n in range(20):
            await server.publish_later("t", {"who": "a" if n % 2 else "b", "n": n}, event="x")
            await server.publish_later("t", {"who": "a", "n": n}, event="y")
        found = await until_alerts(url, 2)
        assert [alert["event"] for alert in found] == ["alert", "alert"]
        assert [alert["data"]["group"] for alert in found] == ["b", "a"]
        assert [alert["data"]["count"] for alert in found] == [4, 4]
        assert found[0]["meta"] == {"rule": "many", "group": "b"}
        assert await metric(url, 'fastsse_rule_matches_total{rule="many"}') == 20
        assert await metric(url, 'fastsse_rule_actions_total{rule="many"}') == 2


async def test_alerts_of_a_rule_for_everything_cause_none() -> None:
    rule = {"name": "all", "action": "alert", "count": 1, "publish": "alerts"}
    async with serving(rule) as server:
        for n in range(50):
            await server.publish_later("t", str(n))
        await until_alerts(server.addresses[0], 1)
        assert await metric(server.addresses[0], 'fastsse_rule_matches_total{rule="all"}') == 50


async def test_a_dry_run_counts_and_does_nothing() -> None:
    rules = (
        {"name": "d", "action": "drop", "dry_run": True},
        {**LIMIT, "dry_run": True},
    )
    async with serving(*rules) as server:
        url = server.addresses[0]
        for _ in range(10):
            await server.publish_later("t", "x", event="x")
        assert len(await data_of(server, "t")) == 10
        assert await metric(url, 'fastsse_rule_matches_total{rule="d"}') == 10
        assert await metric(url, 'fastsse_rule_actions_total{rule="d"}') == 0
        assert await page(url, "alerts") == []


async def test_workers_count_together_and_alert_once(tmp_path: Any) -> None:
    file = tmp_path / "fastsse.toml"
    file.write_text(
        '[[rules]]\nname = "many"\naction = "alert"\ncount = 9\npublish = "alerts"\n'
        '[[rules]]\nname = "no"\naction = "drop"\nwhen = "data.n == 3"\n'
    )
    async with cluster.process("memory", "--config", str(file), "--workers", "2") as url:
        async with httpx.AsyncClient(trust_env=False) as client:
            for n in range(13):
                # A connection of its own for each, so that both workers take some.
                headers = {"Connection": "close", "Content-Type": "application/json"}
                answer = await client.post(
                    f"{url}/events", params={"topic": "t"}, json={"n": n}, headers=headers
                )
                assert answer.status_code == 200
        (alert,) = await until_alerts(url, 1)
        assert alert["data"]["count"] == 10
        assert len(await page(url, "t")) == 12


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_topic_rules_hold_for_alerts_whatever_process_counts(
    tmp_path: Any, workers: str
) -> None:
    """A rule makes alerts private, and another allows no event of their type."""
    file = tmp_path / "fastsse.toml"
    file.write_text(
        '[[rules]]\nname = "hidden"\naction = "alert"\ncount = 2\npublish = "secret/a"\n'
        '[[rules]]\nname = "odd"\naction = "alert"\ncount = 2\npublish = "odd"\n'
        '[[topics]]\nmatch = "secret/*"\nprivate = true\n'
        '[[topics]]\nmatch = "odd"\ntypes = ["other"]\n'
    )
    reader = mint({"mercure": {"subscribe": ["secret/a"]}}, key=SECRET).decode()
    flags = ("--config", str(file), "--workers", workers, "--jwt-key", SECRET, "--anonymous")
    async with cluster.process("memory", *flags) as url:
        writer = mint({"mercure": {"publish": ["*"]}}, key=SECRET).decode()
        token = {"Authorization": f"Bearer {writer}"}
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as client:
            for n in range(3):
                answer = await client.post(
                    "/events", params={"topic": "t"}, content=str(n), headers=token
                )
                assert answer.status_code == 200

            async def seen(topic: str, headers: dict[str, str]) -> list[Any]:
                asked = {"topic": topic, "last_event_id": "earliest", "wait": "0"}
                answer = (await client.get("/events", params=asked, headers=headers)).json()
                return [event["data"]["rule"] for event in answer["events"]]

            async with asyncio.timeout(30):
                while await seen("secret/a", {"Authorization": f"Bearer {reader}"}) != ["hidden"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
                while await metric(url, 'fastsse_rule_failures_total{rule="odd"}') != 1:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            assert await seen("secret/a", {}) == []
            assert await seen("odd", {}) == []


def test_the_memory_of_an_alert_is_bounded() -> None:
    from fastsse.config.eventrules import EventRule
    from fastsse.rules import alerts

    rule = EventRule(name="m", action="alert", count=5, publish="a", by="{data.who}")
    one = alerts._Alert(rule)
    for n in range(3 * alerts.GROUPS_MAX):
        one.group(str(n)).count(n)
    assert len(one.groups) == alerts.GROUPS_MAX
    group = one.group("x")
    for n in range(100_000):
        group.count(n // 10)
    assert len(group.parts) == alerts.PARTS
    assert group.total == alerts.PARTS * 10


async def test_an_alert_waits_for_a_log_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastsse.rules import alerts

    monkeypatch.setattr(alerts, "AGAIN_S", 0.02)
    async with serving(LIMIT) as server:
        running: Any = server._running
        counting: alerts.Alerts = running._alerts
        publish, refused = counting._publish, 0

        def refusing(events: Any, done: Any) -> None:
            nonlocal refused
            refused += 1
            if refused < 3:
                done(Unavailable("memory", 1))
            else:
                publish(events, done)

        monkeypatch.setattr(counting, "_publish", refusing)
        for _ in range(4):
            await server.publish_later("t", "x", event="x")
        await until_alerts(server.addresses[0], 1)
        assert refused == 3


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"action": "alert", "publish": "a"}, "count"),
        ({"action": "alert", "count": 1}, "publish"),
        ({"action": "drop", "publish": "a"}, "publish"),
        ({"action": "copy", "publish": "a", "within": "5s"}, "within"),
        ({"action": "copy", "publish": "{nothing}"}, "must be text with"),
        ({"action": "drop", "when": "a b"}, "when"),
        ({"action": "drop", "when": "topic > 'a'"}, "topic has no order"),
        ({"action": "burn"}, "action"),
        ({"action": "alert", "publish": "a", "count": 10**12}, "count"),
        ({"action": "drop", "nme": "x"}, "nme"),
    ],
)
def test_a_wrong_rule_is_refused_before_the_start(rule: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Config(rules=[{"name": "r", **rule}])


def test_two_rules_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="different"):
        Config(rules=[{"name": "r", "action": "drop"}] * 2)


async def test_a_reload_applies_rules_and_keeps_counting() -> None:
    async with serving(LIMIT) as server:
        running: Any = server._running
        url = server.addresses[0]
        for _ in range(3):
            await server.publish_later("t", "x", event="x")
        drop = {"name": "d", "action": "drop", "when": 'event == "y"'}
        running.apply(Config(port=0, drain=0, rules=[LIMIT, drop]))
        await server.publish_later("t", "y", event="y")
        await server.publish_later("t", "x", event="x")
        await until_alerts(url, 1)
        assert len(await page(url, "t")) == 4
        running.apply(Config(port=0, drain=0))
        await server.publish_later("t", "y", event="y")
        assert len(await page(url, "t")) == 5
        assert json.dumps(await metric(url, 'fastsse_rule_actions_total{rule="d"}')) == "1.0"


async def test_publishes_on_open_connections_are_answered_with_their_ids_after_a_reload(
    tmp_path: Any,
) -> None:
    rules = [
        {"name": "c", "action": "copy", "topics": ["cp"], "publish": "copied"},
        {"name": "d", "action": "drop", "topics": ["dr"]},
        {"name": "s", "action": "drop", "topics": ["s"], "when": 'data == "x"'},
    ]
    for store in ("memory", f"sqlite:{tmp_path}/h.db"):
        async with serving(store=store) as server, connected(server) as raw:
            await raw.send(request("PUT", "/streams/s", PLAIN, body=b"a"))
            assert (await raw.answer()).status == 201

            async def publish(data: bytes) -> list[Any]:
                paths = [
                    "/streams/s",
                    *(f"/events?topic={name}" for name in ("cp", "t", "dr", "t")),
                ]
                sent = [request("POST", path, PLAIN, body=data) for path in paths]
                await raw.send(b"".join(sent))  # In one turn of the loop.
                return [await raw.answer() for _ in sent]

            for _ in range(3):
                await publish(b"before")
            running: Any = server._running
            running.apply(Config(port=0, drain=0, rules=rules, store=store))
            append, copied, first, dropped, second = await publish(b"x")
            url = server.addresses[0]
            assert append.status == 204
            assert [one["data"] for one in await page(url, "s")] == ["a", *["before"] * 3]
            assert dropped.json == {"id": ""}
            (copy,) = await page(url, "copied")
            ids = [event["id"] for name in ("cp", "t") for event in await page(url, name)]
            assert [one.json["id"] for one in (copied, first, second)] == [ids[3], *ids[-2:]]
            assert copy["id"] not in ids


async def test_rules_refuse_no_publish_on_a_machine_that_is_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    matches = Matcher.matches

    def slow(matcher: Matcher, seen: Seen) -> bool:
        time.sleep(0.01)  # As when another process has the core.
        return matches(matcher, seen)

    monkeypatch.setattr(Matcher, "matches", slow)
    drop = {"name": "d", "action": "drop", "when": 'event == "y"'}
    async with serving(drop, interceptor_time="1ms") as server:
        await server.publish_later("t", "x", event="x")
        await server.publish_later("t", "y", event="y")
        assert await data_of(server, "t") == ["x"]
