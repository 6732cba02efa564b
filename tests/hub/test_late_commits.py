"""What comes to the hub after its sender stopped: at the end of a worker under load."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fastsse import Config
from fastsse._core import REASON_ENDED
from fastsse.events import Event
from fastsse.worker import Worker
from tests.hub.onenode import Node


@pytest.mark.parametrize("ack", ["received", "written", "synced"])
async def test_a_commit_after_the_sender_stopped_is_acknowledged(tmp_path: Path, ack: str) -> None:
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    store = f"sqlite:{tmp_path / 'history'}"
    worker = await Worker.open(Config(port=0, store=store, ack=ack, log_level="error"))  # type: ignore[arg-type]
    answers = [
        asyncio.ensure_future(worker.publish_later(Event((f"t{n}", "all"), "x"))) for n in range(50)
    ]
    await asyncio.sleep(0)  # Each has been given to the store; no answer has come back.
    async with asyncio.timeout(60):
        await worker.close()
        ids = await asyncio.gather(*answers)
    assert failures == []
    assert len(set(ids)) == 50


def test_services_find_no_stream_after_the_sender_stopped(node: Node) -> None:
    client = node.subscribe("a")
    stream = node.hub.streams.id_of(client.handle)
    node.hub.stop()
    node.sender.stop()
    assert node.hub.streams.find(stream) == 0
    assert not node.hub.streams.pong(stream)
    assert not node.hub.streams.close(client.handle, REASON_ENDED)
    node.hub.streams.revoke(1, 0, 0)
