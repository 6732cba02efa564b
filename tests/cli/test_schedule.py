"""`fastsse schedule` lists and cancels what waits."""

import json

from fastsse.client import Publisher


async def test_delayed_events_are_listed_and_cancelled(start, here) -> None:
    async with Publisher(here.url) as publisher:
        later = (await publisher.publish("b", "2", delay="2h")).scheduled
        soon = (await publisher.publish(["a", "c"], "1", delay="1h")).scheduled
    shown = await (await start("schedule", "list", "--url", here.url)).ended()
    _, first, second = shown.out.splitlines()
    assert (first.split()[0], second.split()[0]) == (soon, later)
    assert "a c" in first
    done = await (await start("schedule", "cancel", soon, "0" * 32, "--url", here.url)).ended()
    assert (done.status, done.out) == (1, "")
    assert f"No delayed event with the id {'0' * 32} waits" in done.err
    shown = await (await start("schedule", "list", "--json", "--url", here.url)).ended()
    (event,) = json.loads(shown.out)["events"]
    assert (event["id"], event["topics"], event["reason"]) == (later, ["b"], "")
    done = await (await start("schedule", "cancel", later, "--url", here.url)).ended()
    assert (done.status, done.err) == (0, "")


async def test_a_path_that_is_no_server_of_ours_is_one_line(start, here) -> None:
    shown = await (await start("schedule", "list", "--url", "http://127.0.0.1:9")).ended()
    assert shown.status != 0
    assert len(shown.err.splitlines()) == 1
