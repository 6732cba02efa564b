"""`fastsse serve` starts from flags, environment and file, and says in one line why it can't."""

import json
import signal
import socket
from pathlib import Path

import pytest

from fastsse.client import Publisher, Unreachable, listen


async def served_at(running) -> str:
    """Its address, from the start-up line."""
    record = json.loads(await running.error_line())
    return record["addresses"][0]


async def test_events_go_from_publisher_to_subscriber_and_sigterm_ends_it(start) -> None:
    running = await start("serve", "--port", "0", "--drain", "0s")
    url = await served_at(running)
    async with listen(url, "news", reconnect=False) as stream, Publisher(url) as publisher:
        receipt = await publisher.publish("news", "early")
        async with listen(url, "news", last_event_id="earliest") as resumed:
            assert (await anext(resumed)).id == receipt.id
        running.signal(signal.SIGTERM)
        assert (await anext(stream)).data == "early"
        # A drain leaves out the last chunk: the stream broke off and is not over.
        with pytest.raises(Unreachable):
            await anext(stream)
    assert (await running.ended()).status == 0


async def test_configuration_comes_from_all_sources(start, tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_text('port = 1\npublish_token = "s3cret"\nlog_format = "json"\n')
    running = await start("serve", "--config", str(file), FASTSSE_PORT="0", FASTSSE_DRAIN="0s")
    url = await served_at(running)
    async with Publisher(url, token="s3cret") as publisher:
        await publisher.publish("news", "x")
    running.signal(signal.SIGINT)
    done = await running.ended()
    assert done.status == 0
    assert "s3cret" not in done.err


async def test_port_in_use_is_one_line(start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = await (await start("serve", "--port", str(port))).ended()
    assert (done.status, done.out) == (1, "")
    assert done.err == f"Port {port} is in use. Choose another with --port.\n"


async def test_inherited_public_socket_is_refused_with_its_origin(start) -> None:
    done = await (await start("serve", "--host", "0.0.0.0")).ended()
    assert done.status == 2
    assert done.err.startswith("host = 0.0.0.0 (from --host) must be a loopback address")
    assert done.err.count("\n") == 1


async def test_doubts_are_logged_at_the_start(start) -> None:
    running = await start("serve", "--port", "0", FASTSSE_HEARBEAT="1s")
    warning = json.loads(await running.error_line())
    assert (warning["level"], "FASTSSE_HEARTBEAT" in warning["event"]) == ("warning", True)
