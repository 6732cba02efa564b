"""A server with a stored history, as its clients see it: real processes, killed for good."""

import json
import signal
import sqlite3
from pathlib import Path

import httpx
import pytest

from fastsse.client import Publisher, listen
from tests.cli.commandline import Running
from tests.cli.conftest import Start, start

__all__ = ["start"]  # The fixture, used by name.


async def served_at(running: Running) -> str:
    """Its address, from the start-up line."""
    return json.loads(await running.error_line())["addresses"][0]


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    return ["--port", "0", "--drain", "0s", "--store", f"sqlite:{tmp_path / 'history.db'}"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
async def test_a_client_resumes_after_a_restart_with_no_new_publish(
    start: Start, options: list[str], number: signal.Signals
) -> None:
    running = await start("serve", *options)
    url = await served_at(running)
    async with Publisher(url) as publisher:
        ids = [(await publisher.publish("news", str(count))).id for count in range(5)]
        ids += [(await publisher.publish("news", "own", id="mine")).id]
    running.signal(number)
    await running.ended()
    url = await served_at(await start("serve", *options))
    for last_id, missed in ((ids[1], ids[2:]), (ids[4], ["mine"]), ("earliest", ids)):
        async with listen(url, "news", last_event_id=last_id) as stream:
            assert [(await anext(stream)).id for _ in missed] == missed
    async with (
        listen(url, "news", last_event_id="mine", reconnect=False) as stream,
        Publisher(url) as publisher,
    ):
        receipt = await publisher.publish("news", "after")
        event = await anext(stream)
        assert (event.id, event.event) == (receipt.id, "message")
        assert event.id not in ids


async def test_a_second_server_on_the_same_file_says_so_in_one_line(
    start: Start, options: list[str]
) -> None:
    await served_at(await start("serve", *options))
    ended = await (await start("serve", *options)).ended()
    assert ended.status == 1
    assert "is in use by another server (process " in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_private_event_whose_bit_was_lost_in_the_file_is_a_gap_to_anonymous_readers(
    start: Start, options: list[str], tmp_path: Path, workers: str
) -> None:
    running = await start("serve", *options)
    url = await served_at(running)
    async with Publisher(url) as publisher:
        events = [{"topic": "news", "data": data} for data in ("one", "not for all", "three")]
        events[1]["private"] = True  # type: ignore[assignment]
        await publisher.publish_batch(events)
    running.signal(signal.SIGTERM)
    await running.ended()
    with sqlite3.connect(tmp_path / "history.db") as connection:
        ((place, record),) = connection.execute(
            "SELECT place, record FROM event WHERE instr(record, CAST('not for all' AS BLOB))"
        ).fetchall()
        assert record[25] == 1  # The flags of entry format 2.
        record = record[:25] + b"\0" + record[26:]
        connection.execute("UPDATE event SET record = ? WHERE place = ?", (record, place))
    connection.close()
    running = await start("serve", *options, "--workers", workers)
    line = await running.error_line()
    while "addresses" not in line:
        line = await running.error_line()
    url = json.loads(line)["addresses"][0]
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        seen = b""
        stream = client.stream("GET", "/events?topic=news&last_event_id=earliest")
        async with stream as answer:
            async for chunk in answer.aiter_bytes():
                seen += chunk
                if b"three" in seen:
                    break
        assert b"not for all" not in seen
        assert seen.index(b"one") < seen.index(b"fastsse.gap") < seen.index(b"three")
        assert b'"reason":"lost"' in seen
        metrics = (await client.get("/metrics")).text
        assert "fastsse_store_damaged_total 1.0" in metrics


async def test_a_store_that_is_lost_is_said_to_publishers_and_probes_and_streams_stay(
    start: Start, options: list[str], tmp_path: Path
) -> None:
    url = await served_at(await start("serve", *options))
    path, away = tmp_path / "history.db", tmp_path / "away"
    async with (
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
        listen(url, "news", reconnect=False) as stream,
    ):
        assert (await client.post("/events?topic=news", content="1")).status_code == 200
        assert (await anext(stream)).data == "1"
        path.rename(away)
        answer = await client.post("/events?topic=news", content="refused")
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert "gone from its place" in ready.text
        away.rename(path)
        while (await client.post("/events?topic=news", content="2")).status_code == 503:
            pass
        assert (await anext(stream)).data == "2"
        assert (await client.get("/readyz")).status_code == 200


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("is_complete", [False, True], ids=["older", "complete"])
async def test_a_client_of_a_restored_export_receives_a_gap_unless_the_export_was_complete(
    start: Start, options: list[str], tmp_path: Path, workers: str, is_complete: bool
) -> None:
    path, lines = tmp_path / "history.db", tmp_path / "lines"
    running = await start("serve", *options)
    url = await served_at(running)
    async with Publisher(url) as publisher:
        first = (await publisher.publish("news", "in the export")).id
        export = await start("history", "export", str(path))
        lines.write_text((await export.ended()).out)
        # The export ends here. What follows is lost with the file.
        after = None if is_complete else (await publisher.publish("news", "lost")).id
    running.signal(signal.SIGTERM)
    await running.ended()
    path.unlink()
    arguments = ["--complete"] if is_complete else []
    imported = await start("history", "import", *arguments, str(path), str(lines))
    assert (await imported.ended()).status == 0
    for _ in range(2):  # It is the same after a restart.
        running = await start("serve", *options, "--workers", workers)
        line = await running.error_line()
        while "addresses" not in line:
            line = await running.error_line()
        url = json.loads(line)["addresses"][0]
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            for last_id in filter(None, (first, after)):
                path_of = f"/events?topic=news&last_event_id={last_id}"
                async with client.stream("GET", path_of) as answer:
                    seen = await anext(answer.aiter_text())
                assert ("fastsse.gap" in seen) is not is_complete
        running.signal(signal.SIGTERM)
        await running.ended()
