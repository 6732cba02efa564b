"""The pytest plugin records what an application publishes, without a wait by the clock."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastsse
from fastsse.testing import Recorder, recording
from tests.asgi.inprocess import Call, absent

ROOT = Path(__file__).parents[2]
pytest_plugins = ["fastsse.testing.plugin"]


async def test_fixture_runs_a_hub_in_the_loop_of_the_test(fastsse_hub: Recorder) -> None:
    await fastsse_hub.publish("user/7", {"order": 17}, event="order", private=True)
    event = await fastsse_hub.next("user/7")
    assert (event.json(), event.event, event.private) == ({"order": 17}, "order", True)


async def test_next_waits_for_what_is_published_later(fastsse_hub: Recorder) -> None:
    later = asyncio.create_task(fastsse_hub.next("b"))
    await fastsse_hub.publish("a", "1")
    await fastsse_hub.publish("b", "2")
    assert (await later).data == "2"
    assert (await fastsse_hub.next()).data == "1"
    assert [one.data for one in fastsse_hub.events()] == ["1", "2"]
    fastsse_hub.clear()
    assert fastsse_hub.events() == []


async def test_missing_event_fails_with_what_was_published(fastsse_hub: Recorder) -> None:
    await fastsse_hub.publish("a", "1", event="x")
    with pytest.raises(AssertionError, match=r"topic 'b'.*\(\['a'\], 'x'\)"):
        await fastsse_hub.next("b", timeout_s=0.01)


async def test_recording_takes_the_mount_of_the_application() -> None:
    async def shop(scope: dict[str, object], receive: object, send: object) -> None:
        await app.publish("user/7", "paid", event="order")
        await absent(scope, receive, send)

    app = fastsse.mount(shop, config=fastsse.Config(drain=0))
    for _ in range(2):  # Each begins with an empty history.
        async with recording(app) as hub:
            async with Call(app, "/orders/17/paid") as call:
                await call.answered()
            assert [one.event for one in hub.events("user/7")] == ["order"]
            assert hub.events("user/8") == []
    async with app:
        with pytest.raises(RuntimeError, match="runs already"):
            async with recording(app):
                pass


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_pytest_finds_the_fixture_in_each_mode(tmp_path: Path, mode: str) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.mark.asyncio\n"
        "async def test_it(fastsse_hub):\n"
        "    await fastsse_hub.publish('t', 'x')\n"
        "    assert (await fastsse_hub.next('t')).data == 'x'\n"
    )
    folders = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "fastsse.testing.plugin"]
    done = subprocess.run(
        [*command, "-o", f"asyncio_mode={mode}", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
