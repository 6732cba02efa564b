"""`fastsse source tail`: each line of files or of the input is one event, whatever is killed."""

import asyncio
import json
import pathlib
import signal
from collections.abc import Callable

import httpx
import pytest

from fastsse.cli import main
from fastsse.config import Config
from fastsse.server import Server
from tests.cli.conftest import Here, Start
from tests.loopback import held_port


async def page(url: str, topic: str = "t") -> list[object]:
    """The data of all events of a topic."""
    found: list[object] = []
    cursor = "earliest"
    async with httpx.AsyncClient(trust_env=False) as client:
        while True:
            params = {"topic": topic, "last_event_id": cursor, "wait": "0"}
            answer = (await client.get(f"{url}/events", params=params)).json()
            if not answer["events"]:
                return found
            found += [event["data"] for event in answer["events"]]
            cursor = answer["next"]


async def until_page(url: str, is_so: Callable[..., bool]) -> list[object]:
    found: list[object] = []
    for _ in range(600):
        if is_so(found := await page(url)):
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"it never was so: {len(found)} events")


async def test_lines_of_the_input_are_events_until_it_ends(start: Start, here: Here) -> None:
    running = await start(
        "source", "tail", "--topic", "t/{data.n|x}", "--payload", "auto", "--event", "line",
        FASTSSE_URL=here.url,
    )  # fmt: skip
    ended = await running.ended(b'plain\n{"n":"1"}\nwithout an end')
    assert ended.status == 0
    assert "3 events" in ended.err
    assert await page(here.url, "t/x") == ["plain", "without an end"]
    assert await page(here.url, "t/1") == [{"n": "1"}]


async def test_bad_lines_are_dead_letters_and_the_others_go_on(
    start: Start, here: Here, tmp_path: pathlib.Path
) -> None:
    letters = tmp_path / "bad.jsonl"
    running = await start(
        "source", "tail", "--topic", "t", "--payload", "json", "--dead-letter", str(letters),
        FASTSSE_URL=here.url,
    )  # fmt: skip
    ended = await running.ended(b'1\n{\n2\n\n"' + b"x" * 2_000_000 + b'"\n3\n')
    assert ended.status == 1
    assert "3 events" in ended.err
    assert "3 set aside" in ended.err
    assert await page(here.url) == [1, 2, 3]
    lines = [json.loads(line) for line in letters.read_bytes().splitlines()]
    assert [line["origin"] for line in lines] == ["-:2", "-:6", "-:7"]


async def test_kills_of_the_command_lose_and_repeat_no_line(
    start: Start, tmp_path: pathlib.Path
) -> None:
    file, places = tmp_path / "app.log", tmp_path / "places"
    total = 2_000
    given = ("source", "tail", str(file), "--topic", "t", "--place", str(places))
    file.write_text("".join(f"{n}\n" for n in range(total)))
    async with Server(Config(port=0, drain=0, history_events=2 * total)) as server:
        url = server.addresses[0]
        for part in (1, 2, 3):
            running = await start(*given, FASTSSE_URL=url)
            await until_page(url, lambda found, least=part * 500: len(found) >= least)
            running.signal(signal.SIGKILL)
            await running.ended()
        with file.open("a") as more:
            more.write(f"{total}\n")
        running = await start(*given, FASTSSE_URL=url)
        found = await until_page(url, lambda found: len(found) > total)
        running.signal(signal.SIGTERM)
        ended = await running.ended()
    assert ended.status == 0
    assert [int(str(text)) for text in found] == list(range(total + 1))


async def test_a_server_that_is_away_is_waited_for(start: Start) -> None:
    with held_port() as held:
        port: int = held.getsockname()[1]
    running = await start("source", "tail", "--topic", "t", FASTSSE_URL=f"http://127.0.0.1:{port}")
    await running.write(b"one\ntwo\n")
    assert "lines wait" in await running.error_line()
    async with Server(Config(port=port, drain=0)) as server:
        url = server.addresses[0]
        assert await until_page(url, lambda found: len(found) == 2) == ["one", "two"]
        assert (await running.ended()).status == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "topic"),
        (("--topic", "t{x}"), "placeholder"),
        (("--topic", "t", "--place", "p"), "--place"),
        (("--topic", "t", "--filter", "a b"), "--filter"),
        (("--topic", "t", "--meta", "x"), "NAME=TEMPLATE"),
        (("x.log", "--topic", "t", "--start", "now"), "--start"),
    ],
)
def test_wrong_usage_is_refused_before_a_line_is_read(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["source", "tail", *arguments]) == 2
    assert said in capsys.readouterr().err
