"""A stop by SIGTERM, and the start behind it. Each check starts a server of its own."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import ExitStack

from sse_conformance.registry import Case, check, expect
from sse_conformance.wire import ProtocolError

END = "the-end"
STOP_S = 15.0


@check("drain.ends", "SIGTERM ends open streams and the process within 15 s", is_long=True)
def ends(case: Case) -> str:
    with case.servers.started() as server, ExitStack() as stack:
        hub = server.hub()
        hub.begin("drain.ends")
        topic = hub.topic()
        streams = [stack.enter_context(hub.listen(topic)) for _ in range(20)]
        begun = time.monotonic()
        server.kill(signal.SIGTERM)
        for stream in streams:
            stream.to_end(STOP_S)
        expect(server.wait(STOP_S), "the process did not end")
        took = time.monotonic() - begun
        return f"{took:.1f} s, retry: {streams[0].parsed.retry_ms}"


@check("drain.publishes", "No publish that was acknowledged during a stop is lost",
       needs=["resume", "durable"], is_long=True)  # fmt: skip
def publishes(case: Case) -> str:
    with case.servers.started("durable") as server:
        hub = server.hub()
        hub.begin("drain.publishes")
        topic = hub.topic()
        with hub.listen(topic) as stream:
            hub.send(topic, "first")
            stream.next()
            place = stream.place
        accepted: list[str] = []
        publishing = threading.Event()

        def publish() -> None:
            for number in range(80):
                try:
                    if hub.publish(topic, str(number)).is_accepted:
                        accepted.append(str(number))
                except (ProtocolError, OSError):
                    break
                publishing.set()
            publishing.set()
            hub.hang_up()

        publisher = threading.Thread(target=publish)
        publisher.start()
        publishing.wait()
        hub.hang_up()
        server.restart(signal.SIGTERM)
        publisher.join()
        with hub.listen(topic, after=place) as stream:
            hub.send(topic, END)
            found = [message.data for message in stream.until(END)]
            hub.hang_up()
            lost = [text for text in accepted if text not in found]
            expect(not lost or stream.gaps, f"{len(lost)} of {len(accepted)} lost, and no notice")
        reported = ", reported" if lost else ""
        return f"{len(accepted)} acknowledged, {len(lost)} lost{reported}"


@check("drain.free_port", "The port is free again at once", is_long=True)
def free_port(case: Case) -> str:
    with case.servers.started() as server:
        hub = server.hub()
        hub.begin("drain.free_port")
        topic = hub.topic()
        with hub.listen(topic):
            begun = time.monotonic()
            server.restart(signal.SIGTERM)
        hub.hang_up()
        with hub.listen(topic) as stream:
            hub.send(topic, END)
            stream.until(END)
            hub.hang_up()
        return f"serving again after {time.monotonic() - begun:.1f} s"
