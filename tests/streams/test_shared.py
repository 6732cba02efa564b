"""An event that was published to a durable stream and to other topics is content of the stream: no
limit or deletion of another topic takes it out."""

import asyncio
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.http.conftest import Start, asked
from tests.http.raw import until
from tests.streams.test_protocol import TEXT, content, created


def options(store: str, folder: Path) -> dict[str, object]:
    if store == "memory":
        return {}
    return {"store": f"sqlite:{folder}/h.db"}


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_a_purge_of_another_topic_is_refused_and_names_the_stream(
    start: Start, tmp_path: Path, store: str
) -> None:
    ask = partial(asked, await start(**options(store, tmp_path)))
    await created(ask, "/streams/doc", body=b"one ")
    both = await ask("POST", "/events?topic=doc&topic=all", body=b"two ")
    await ask("POST", "/events?topic=all", body=b"other")
    before = await ask("GET", "/streams/doc?offset=-1")
    offset = (await ask("HEAD", "/streams/doc")).headers["stream-next-offset"]
    for path in (
        "/topics?topic=all",
        f"/events?topic=all&id={both.json['id']}",
        f"/events?topic=doc&id={both.json['id']}",
        "/topics?topic=doc",
    ):
        refused = await ask("DELETE", path)
        assert (refused.status, refused.json["reason"]) == (409, "stream_immutable")
        assert refused.json["detail"] == (
            "Content of the durable stream doc can't be deleted by itself, and does not expire:"
            " delete the stream as a whole."
        )
    after = await ask("GET", "/streams/doc?offset=-1")
    assert (after.body, after.headers["etag"]) == (b"one two ", before.headers["etag"])
    page = await ask("GET", "/events?topic=all&last_event_id=earliest&wait=0")
    assert [event["data"] for event in page.json["events"]] == ["two ", "other"]
    await ask("POST", "/streams/doc", TEXT, body=b"three")
    assert await content(ask, "/streams/doc", offset) == b"three"
    # The stream goes as a whole; then the topic can be purged.
    assert (await ask("DELETE", "/streams/doc")).status == 204
    page = await ask("GET", "/events?topic=all&last_event_id=earliest&wait=0")
    assert [event["data"] for event in page.json["events"]] == ["two ", "other"]
    assert (await ask("DELETE", "/topics?topic=all")).status == 200
    page = await ask("GET", "/events?topic=all&last_event_id=earliest&wait=0")
    assert page.json["events"] == []


async def test_a_purge_of_what_the_store_has_evicted_takes_nothing_out_of_a_stream(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastsse.backbone.sqlite.retention.ROUND_MS", 10)
    monkeypatch.setattr("fastsse.hub.history.History.sweep", lambda self, now_ms: False)
    rules = [{"match": "all", "history_age": 0.01}]
    ask = partial(asked, await start(topics=rules, **options("sqlite", tmp_path)))
    await created(ask, "/streams/doc")
    for text in (b"one ", b"two"):
        assert (await ask("POST", "/events?topic=doc&topic=all", body=text)).status == 200
    with closing(sqlite3.connect(tmp_path / "h.db")) as file:
        count = "SELECT events FROM topic WHERE name = 'all'"
        await until(lambda: file.execute(count).fetchall() == [(0,)])
    # Memory has them still.
    assert (await ask("DELETE", "/topics?topic=all")).status == 200
    assert await content(ask, "/streams/doc") == b"one two"
    page = await ask("GET", "/events?topic=*&last_event_id=earliest&wait=0")
    assert [event["data"] for event in page.json["events"]] == ["one ", "two"]
    page = await ask("GET", "/events?topic=all&last_event_id=earliest&wait=0")
    assert page.json["events"] == []


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_no_limit_of_another_topic_takes_content_out(
    start: Start, tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastsse.backbone.sqlite.retention.ROUND_MS", 10)
    rules = [
        {"match": "few", "history_events": 1},
        {"match": "small", "history_bytes": 1},
        {"match": "old", "history_age": 0.01},
        {"match": "newest", "keep_last": 1, "history_age": 0.01},
        {"match": "never", "history_events": 0},
    ]
    server = await start(
        topics=rules, history_total=100_000, lag_policy="skip", **options(store, tmp_path)
    )
    ask = partial(asked, server)
    others = [rule["match"] for rule in rules]
    await created(ask, "/streams/doc")
    query = "".join(f"&topic={name}" for name in [*others, "plain"])
    texts = [b"%d " % n for n in range(40)]
    for text in texts:
        assert (await ask("POST", f"/events?topic=doc{query}", body=text)).status == 200
    for _ in range(200):  # More than the total of all topics.
        await ask("POST", "/events?topic=plain", body=b"x" * 1_000)

    # The limits of the other topics take effect.
    for name in others:
        path = f"/events?topic={name}&last_event_id=earliest&wait=0"
        while len((await ask("GET", path)).json["events"]) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert await content(ask, "/streams/doc") == b"".join(texts)
    # Nor does the end of another stream that has the same event.
    await created(ask, "/streams/second")
    assert (await ask("POST", "/events?topic=second&topic=doc", body=b"both")).status == 200
    assert (await ask("DELETE", "/streams/second")).status == 204
    assert await content(ask, "/streams/doc") == b"".join(texts) + b"both"
    if store == "sqlite":
        backbone = server._worker._hub._backbone
        await until(lambda: not backbone._writer._file.streams.has_dropped)
        await server.close()
        ask = partial(asked, await start(**options(store, tmp_path)))
        assert await content(ask, "/streams/doc") == b"".join(texts) + b"both"
