"""A server as a program of its own, in one process: what signals do."""

import signal

import pytest

from tests.http.raw import get, opened
from tests.supervisor.conftest import Serve, serve

__all__ = ["serve"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_drains_and_exits_0(serve: Serve, number: int) -> None:
    service = await serve("--workers", "1", "--retry", "3s")
    started = await service.logged("fastsse is serving.")
    assert started["max_connections"] > 0
    assert started["memory_limit"] == "1GiB"
    async with opened(service.url) as raw:
        await raw.send(get("/events?topic=a"))
        stream = await raw.stream()
        await stream.opening()
        service.signal(number)
        await stream.to_end()
        assert stream.parsed.retry_ms is not None
        assert stream.parsed.retry_ms >= 3000
    assert await service.ended() == 0


async def test_second_signal_exits_at_once(serve: Serve) -> None:
    service = await serve("--workers", "1", "--drain", "1h")
    async with opened(service.url) as raw, opened(service.url) as other:
        for one in (raw, other):
            await one.send(get("/events?topic=a"))
            await (await one.stream()).opening()
        service.signal(signal.SIGTERM)
        await service.logged("Draining.")
        service.signal(signal.SIGTERM)
        assert await service.ended() == 128 + signal.SIGTERM


async def test_hangup_is_a_reload_and_survived(serve: Serve) -> None:
    service = await serve("--workers", "1")
    service.signal(signal.SIGHUP)
    await service.logged("Reloaded.")
    async with opened(service.url) as raw:
        await raw.send(get("/healthz"))
        assert (await raw.answer()).status == 200
    service.signal(signal.SIGTERM)
    assert await service.ended() == 0
