"""Tests of applications that publish: which events were published, without waiting by a clock.

The fixture `fastsse_hub` is a mount of its own in the loop of the test:

    async def test_paid_order_is_published(fastsse_hub):
        await pay(17, publish=fastsse_hub.publish)
        event = await fastsse_hub.next("user/7")
        assert event.json() == {"order": 17}

`recording` does the same with the mount of the application:

    async with fastsse.testing.recording(app) as hub:
        await client.post("/orders/17/paid")
        assert [event.event for event in hub.events("user/7")] == ["order"]

An event is here when `publish` has returned.
"""

from fastsse.testing.recorder import Recorder, recording

__all__ = ["Recorder", "recording"]
