"""A server with a stored history, as its clients see it: real processes, killed for good."""

import json
import signal
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
