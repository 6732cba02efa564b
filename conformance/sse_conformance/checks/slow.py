"""Slow clients: they delay no other client, cost bounded memory, and lose nothing silently."""

from __future__ import annotations

import time
from contextlib import ExitStack

from sse_conformance.hub import Hub, Stream
from sse_conformance.registry import Case, Failed, NotTested, check, expect
from sse_conformance.server import memory_bytes, open_sockets
from sse_conformance.wire import ProtocolError, Timeout

END = "the-end"
_FILLING = "x" * 30_000
#: What stuck clients may cost a hub in total, in bytes.
_MEMORY_MAX = 128 << 20


def _flood(hub: Hub, topic: str, count: int) -> list[str]:
    """Publishes large events; those that were accepted. A hub may refuse some."""
    accepted = []
    for number in range(count):
        if hub.publish(topic, f"{number} {_FILLING}").is_accepted:
            accepted.append(str(number))
    return accepted


@check("slow.others", "A client that does not read delays no other")
def others(case: Case) -> str:
    hub, topic = case.hub, case.hub.topic()
    count = 60 if case.is_short else 400
    found: list[str] = []
    with hub.subscribe(topic, receive_buffer=4096), hub.listen(topic) as fast:
        sent = []
        for number in range(count):
            sent += [str(number)] if hub.publish(topic, f"{number} {_FILLING}").is_accepted else []
            # Reads along: its own socket is never full.
            if sent and sent[-1] == str(number):
                found.append(fast.next().data.split()[0])
    expect(found == sent, f"{len(found)} of {len(sent)} events")
    return f"{len(sent)} events of 30 KB"


@check("slow.notices", "A client that was stuck gets all, a notice, or the end of its stream")
def notices(case: Case) -> str:
    hub, topic = case.hub, case.hub.topic()
    count = 60 if case.is_short else 400
    with hub.subscribe(topic, receive_buffer=4096) as slow:
        accepted = _flood(hub, topic, count)
        hub.publish(topic, END)
        return _what_the_slow_one_got(slow, accepted)


def _what_the_slow_one_got(slow: Stream, accepted: list[str]) -> str:
    found: list[str] = []
    try:
        while True:
            message = slow.next()
            if message.data == END:
                break
            found.append(message.data.split()[0])
    except Timeout:
        raise Failed(f"{len(found)} of {len(accepted)} events, then silence") from None
    except ProtocolError:
        # The end of the stream: the client reconnects with its place.
        expect(found == accepted[: len(found)], f"a hole before the end, in {len(found)} events")
        return f"ended after {len(found)} of {len(accepted)} events"
    if found == accepted:
        return "all events came"
    expect(slow.gaps, f"{len(found)} of {len(accepted)} events, and no notice")
    return f"{len(accepted) - len(found)} missing, reported"


@check("slow.closed", "The sockets of clients that left are closed")
def closed(case: Case) -> str:
    hub = case.hub
    if hub.pids is None:
        raise NotTested("needs a server that the suite starts (--start)")
    topic = hub.topic()
    hub.send(topic, "first")
    hub.hang_up()
    # What earlier checks left is gone first.
    before = _settled(hub, 1 << 30, 1.0)
    streams = [hub.listen(topic) for _ in range(20)]
    for number, stream in enumerate(streams):
        stream.close(reset=number % 2 == 1)
    after = _settled(hub, before, 10.0)
    expect(after <= before, f"20 clients left; {after - before} sockets are still open after 10 s")
    return f"{before} sockets before, {after} after"


def _settled(hub: Hub, wanted: int, timeout_s: float) -> int:
    """The number of sockets, once it is not above `wanted` and does not fall any more."""
    deadline = time.monotonic() + timeout_s
    last = -1
    while time.monotonic() < deadline:
        count = open_sockets(hub.pids())
        if count <= wanted and count == last:
            return count
        last = count
        time.sleep(0.1)
    return last


@check("slow.memory", "Stuck clients cost bounded memory", is_long=True)
def memory(case: Case) -> str:
    hub = case.hub
    if hub.pids is None:
        raise NotTested("needs a server that the suite starts (--start)")
    topic = hub.topic()
    before = memory_bytes(hub.pids())
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(hub.subscribe(topic, receive_buffer=4096))
        _flood(hub, topic, 400)
        grown = memory_bytes(hub.pids()) - before
    expect(grown < _MEMORY_MAX, f"40 clients that missed 12 MB cost {grown >> 20} MiB")
    return f"40 clients that missed 12 MB cost {grown / 2**20:.1f} MiB"
