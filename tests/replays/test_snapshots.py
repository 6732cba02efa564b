"""`last_each` over every store, with one worker and with two, also after everything was restarted
and while events are published at random."""

import asyncio
import json
import random
import signal

from fastsse.client import Publisher, listen
from fastsse.client.decoder import ReceivedEvent
from tests.replays.test_gaps import redis, store
from tests.supervisor.conftest import serve
from tests.supervisor.service import Service

__all__ = ["redis", "serve", "store"]

SNAPSHOT = "fastsse.snapshot"
TOPICS = [f"s/{n}" for n in range(12)]


async def current(url: str, topics: list[str] | str, **begin: object) -> list[ReceivedEvent]:
    """The events of a new stream up to the end of its snapshot."""
    events = []
    async with listen(url, topics, last_each=2, **begin) as stream:
        async for event in stream:
            events.append(event)
            if event.event == SNAPSHOT:
                return events
    raise AssertionError(events)


def newest_two(published: list[tuple[str, str]]) -> list[str]:
    """The data that a snapshot of two must have, in order."""
    kept: list[tuple[int, str]] = []
    for topic in TOPICS:
        of_topic = [(n, data) for n, (name, data) in enumerate(published) if name == topic]
        kept += of_topic[-2:]
    return [data for _, data in sorted(kept)]


async def test_snapshot_is_right_before_and_after_a_restart(serve, store) -> None:
    options = ("--workers", "2", "--store", store)
    service: Service = await serve(*options)
    chance = random.Random(7)
    published = [(chance.choice(TOPICS), f"n{n}") for n in range(60)]
    async with Publisher(service.url) as publisher:
        for topic, data in published:
            await publisher.publish(topic, data)
        ids = [event.id for event in await current(service.url, TOPICS)]
        for selectors in (TOPICS, "s/{n}", "*"):
            events = await current(service.url, selectors)
            assert [event.data for event in events[:-1]] == newest_two(published)
            assert json.loads(events[-1].data)["complete"]
            assert events[-1].id == ids[-1]
        # The newest events of a topic have expired after the restart.
        short = {"topic": TOPICS[1], "data": "short", "ttl": 0.01}
        await publisher.publish_batch([short] * 12)
        await publisher.delete_event(TOPICS[2], (await publisher.publish(TOPICS[2], "x")).id)
    if store == "memory":
        return
    service.signal(signal.SIGTERM)
    await service.ended()
    service = await serve(*options)
    for selectors in (TOPICS, "s/{n}", "*"):
        events = await current(service.url, selectors)
        assert [event.data for event in events[:-1]] == newest_two(published)
    async with Publisher(service.url) as publisher:
        published.append((TOPICS[0], "after"))
        await publisher.publish(*published[-1])
    # Some of it is in memory now, the rest is in the store.
    events = await current(service.url, TOPICS)
    assert [event.data for event in events[:-1]] == newest_two(published)
    unknown = await current(service.url, TOPICS, last_event_id="unknown")
    assert unknown[0].gap is not None
    assert [event.data for event in unknown[1:-1]] == newest_two(published)


async def test_snapshot_and_what_follows_miss_nothing_while_events_are_published(
    serve, store
) -> None:
    """Each topic counts up. Behind its snapshot a stream gets every number that follows."""
    service: Service = await serve("--workers", "2", "--store", store)
    counts = dict.fromkeys(TOPICS, 0)
    stop = asyncio.Event()

    async def publish() -> None:
        chance = random.Random(1)
        async with Publisher(service.url) as publisher:
            while not stop.is_set():
                topics = chance.sample(TOPICS, 4)
                for topic in topics:
                    counts[topic] += 1
                await publisher.publish_batch(
                    {"topic": topic, "data": {"topic": topic, "n": counts[topic]}}
                    for topic in topics
                )

    async def follow() -> None:
        seen: dict[str, int] = {}
        async with listen(service.url, TOPICS, last_each=1) as stream:
            is_live, received = False, 0
            async for event in stream:
                if event.event == SNAPSHOT:
                    is_live = True
                    continue
                body = event.json()
                if is_live and body["topic"] in seen:
                    assert body["n"] == seen[body["topic"]] + 1
                seen[body["topic"]] = body["n"]
                received += is_live
                if received == 100:
                    return

    publishing = asyncio.create_task(publish())
    try:
        async with asyncio.timeout(60):
            for _ in range(4):
                await asyncio.gather(*(follow() for _ in range(4)))
    finally:
        stop.set()
        await publishing
