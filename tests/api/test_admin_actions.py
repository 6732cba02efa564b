"""What an operator does over HTTP: end streams, bar subjects, change log levels, empty topics."""

import logging

import pytest

from fastsse.server import Server
from tests.api.operators import Subscriber, listed, operator
from tests.auth.minting import mint
from tests.http.conftest import Start
from tests.mercure.client import KEY, ask

# ── What is done ──────────────────────────────────────────────────────────────────────────────


async def test_a_kick_ends_exactly_the_chosen_with_a_time_to_return(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with Subscriber(server, "topic=a") as kicked, Subscriber(server, "topic=b"):
        (row,) = await listed(server, "topic=a")
        with caplog.at_level(logging.INFO, "fastsse.audit"):
            path = f"/admin/connections?id={row['id']}&retry=90s"
            answer = await ask(server, "DELETE", path)
        assert answer.json == {"kicked": 1, "more": False, "missing": []}
        rest = await kicked.reader.read()
        assert b"retry: 90000\n\n" in rest
        assert not rest.endswith(b"0\r\n\r\n")  # The client can see that it is not complete.
        assert [one["topics"] for one in await listed(server)] == [["b"]]
        (line,) = [one for one in caplog.records if one.name == "fastsse.audit"]
        assert (line.operator, line.kicked, line.of_id) == ("local", 1, row["id"])
        again = await ask(server, "DELETE", f"/admin/connections?id={row['id']}")
        assert again.json["kicked"] == 0
    metrics = (await ask(server, "GET", "/metrics")).body.decode()
    assert 'fastsse_disconnects_total{reason="kicked"} 1.0' in metrics


async def test_a_kick_without_a_filter_ends_nothing(server: Server) -> None:
    async with Subscriber(server, "topic=a"):
        for query in ("", "retry=1s", "all=true", "retry=0s&topic=a", "retry=2d&topic=a"):
            answer = await ask(server, "DELETE", f"/admin/connections?{query}")
            assert answer.status == 400, query
        answer = await ask(server, "DELETE", "/admin/connections?topic=a&bar=1m")
        assert (answer.status, answer.field) == (400, "bar")
        assert len(await listed(server)) == 1


async def test_a_barred_subject_is_refused_with_any_token(start: Start) -> None:
    server = await start(jwt_key=KEY)
    tokens = [mint({"sub": "ann", "n": n}, key=KEY).decode() for n in range(2)]
    ann, later = (f"Authorization: Bearer {one}" for one in tokens)
    bob = f"Authorization: Bearer {mint({'sub': 'bob'}, key=KEY).decode()}"
    async with Subscriber(server, "topic=a", ann), Subscriber(server, "topic=a", bob):
        path = "/admin/connections?subject=ann&bar=10m"
        assert (await ask(server, "DELETE", path, operator())).json["kicked"] == 1
        for token in (ann, later):
            assert (await ask(server, "GET", "/events?topic=a", token)).status == 401
        assert [row["subject"] for row in await listed(server, "", operator())] == ["bob"]


async def test_a_log_level_changes_while_the_server_runs(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    before = logging.getLogger("fastsse").level
    try:
        answer = await ask(server, "PUT", "/admin/log-level?level=debug")
        assert answer.json["levels"]["fastsse"] == "debug"
        await ask(server, "PUT", "/admin/log-level?level=error&part=redis")
        levels = (await ask(server, "GET", "/admin/log-level")).json["levels"]
        assert (levels["fastsse"], levels["fastsse.redis"]) == ("debug", "error")
        for query, field in (
            ("level=loud", "level"),
            ("level=info&part=a.b", "part"),
            ("", "level"),
        ):
            answer = await ask(server, "PUT", f"/admin/log-level?{query}")
            assert (answer.status, answer.field) == (400, field)
    finally:
        logging.getLogger("fastsse").setLevel(before)
        logging.getLogger("fastsse.redis").setLevel(logging.NOTSET)


async def test_an_operator_empties_a_topic_and_no_reader_does(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    server = await start(jwt_key=KEY)
    server.publish("news", "x")
    server.publish("other", "x")
    path = "/admin/topics?topic=news"
    assert (await ask(server, "DELETE", path, operator("read"))).status == 403
    with caplog.at_level(logging.INFO, "fastsse.audit"):
        assert (await ask(server, "DELETE", path, operator(sub="ann"))).status == 200
    (line,) = [one for one in caplog.records if one.name == "fastsse.audit"]
    assert (line.operator, line.of_topic) == ("ann", "news")
    rows = (await ask(server, "GET", "/admin/topics", operator())).json["topics"]
    assert {row["topic"]: row["events"] for row in rows} == {"news": 0, "other": 1}
    await ask(server, "POST", "/events?topic=news", operator(), body=b"y")
    rows = (await ask(server, "GET", "/admin/topics?topic=news", operator())).json["topics"]
    assert rows[0]["events"] == 1
    for query, status in (
        ("", 400), ("?topic=", 400), ("?topic=*", 404), ("?topic=never", 404),
        ("?topic=$fastsse/revoke", 400), ("?topic=a&topic=b", 400), ("?topics=a", 400),
    ):  # fmt: skip
        answer = await ask(server, "DELETE", f"/admin/topics{query}", operator())
        assert answer.status == status, (query, answer.body)
