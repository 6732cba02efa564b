"""Views hold over workers and kills: what a stream asked for of its events stays exact."""

import os
import signal
from pathlib import Path

from fastsse.client import Envelope, Publisher, StreamView, listen

VIEW = StreamView(
    event=("trade", "message"),
    filter="data.n >= 10 && meta.tenant == 'acme'",
    envelope=True,
)


def seen(events: list[Envelope]) -> list[int]:
    return [event.data["n"] for event in events]


async def publish(url: str, numbers: range) -> list[int]:
    """Publishes events, half of which are for the view; returns those."""
    wanted = []
    async with Publisher(url) as publisher:
        for n in numbers:
            tenant = "acme" if n % 2 else "other"
            event = "trade" if n % 3 else None
            await publisher.publish(["a", f"t/{n}"], {"n": n}, event=event, meta={"tenant": tenant})
            if n >= 10 and n % 2:
                wanted.append(n)
        await publisher.publish("a", {"n": 99}, event="tock", meta={"tenant": "acme"})
    return wanted


async def take(url: str, count: int, after: str) -> tuple[list[Envelope], str]:
    """So many events of a stream that resumes, and its place."""
    events: list[Envelope] = []
    async with listen(url, "a", view=VIEW, last_event_id=after) as stream:
        async for event in stream:
            assert event.gap is None, event
            assert event.envelope is not None
            events.append(event.envelope)
            if len(events) == count:
                break
        return events, stream.last_event_id


async def test_view_is_exact_over_workers_restarts_and_kills(serve, tmp_path: Path) -> None:
    options = ("--workers", "2", "--store", f"sqlite:{tmp_path / 'h.db'}")
    service = await serve(*options)
    wanted = await publish(service.url, range(30))
    for _ in range(4):  # The kernel chooses the worker.
        events, place = await take(service.url, len(wanted), "earliest")
        assert seen(events) == wanted
    assert {(event.event, event.meta["tenant"]) for event in events} == {
        ("trade", "acme"),
        (None, "acme"),
    }
    assert events[0].topics == ("a", f"t/{wanted[0]}")
    os.kill(service.children()["hub"][0], signal.SIGKILL)
    more = await publish(service.url, range(30, 40))
    assert seen((await take(service.url, len(more), place))[0]) == more
    service.signal(signal.SIGKILL)
    await service.ended()
    again = await serve(*options)
    again_seen, _ = await take(again.url, len(more), place)
    assert seen(again_seen) == more
    assert again_seen[0].topics == ("a", f"t/{more[0]}")


async def test_run_that_was_over_stays_over_after_a_kill(serve, tmp_path: Path) -> None:
    options = ("--workers", "2", "--store", f"sqlite:{tmp_path / 'h.db'}")
    service = await serve(*options)
    async with Publisher(service.url) as publisher:
        await publisher.publish("run", "token")
        await publisher.publish("run", "[DONE]")
    view = StreamView(until_data="[DONE]")
    data = [one.data async for one in listen(service.url, "run", since="earliest", view=view)]
    assert data == ["token", "[DONE]"]
    service.signal(signal.SIGKILL)
    await service.ended()
    again = await serve(*options)
    data = [one.data async for one in listen(again.url, "run", since="earliest", view=view)]
    assert data == ["token", "[DONE]"]
