"""Resume: a client that was away receives exactly what it missed, or learns that it cannot."""

from __future__ import annotations

import signal
import threading
from typing import Any

from sse_conformance.hub import Hub, Stream
from sse_conformance.registry import Case, Failed, check, expect
from sse_conformance.wire import ProtocolError, Timeout

END = "the-end"
NEEDS = ("resume",)


def texts_of(stream: Stream, end: str = END) -> list[str]:
    return [message.data for message in stream.until(end)]


def followed(hub: Hub, topic: str, place: Any) -> tuple[list[str], int]:
    """All that comes behind a place, and how often the hub reported missing events. Some hubs end a
    stream after so many old events: a client then goes on behind the last one."""
    found: list[str] = []
    notices = 0
    while True:
        known = len(found)
        with hub.listen(topic, after=place) as stream:
            if not known:
                hub.send(topic, END)
            try:
                while (message := stream.next()).data != END:
                    found.append(message.data)
                return found, notices + stream.gaps
            except Timeout:
                raise
            except ProtocolError:
                expect(len(found) > known, "the stream ended without an event")
                notices += stream.gaps
                place = stream.place


def place_of_first(hub: Hub, topic: str, first: str = "first") -> Any:
    """Publishes an event to a stream; the place behind it."""
    with hub.listen(topic) as stream:
        hub.send(topic, first)
        message = stream.next()
        expect(message.data == first, f"received {message.data!r}")
        expect(stream.place is not None, "the event has no id")
        return stream.place


@check("resume.header", "Last-Event-ID continues behind the event", source="HTML 9.2", needs=NEEDS)
def header(case: Case) -> None:
    hub, topic = case.hub, case.hub.topic()
    place = place_of_first(hub, topic)
    hub.send(topic, "a", "b")
    with hub.listen(topic, after=place) as stream:
        hub.send(topic, END)
        found = texts_of(stream)
    expect(found == ["a", "b"], f"received {found}")


@check("resume.parameter", "The place may stand in the URL", needs=(*NEEDS, "cursor_parameter"))
def parameter(case: Case) -> None:
    hub, topic = case.hub, case.hub.topic()
    place = place_of_first(hub, topic)
    hub.send(topic, "a", "b")
    with hub.subscribe(topic, after=place, in_query=True) as stream:
        hub.send(topic, END)
        found = texts_of(stream)
    expect(found == ["a", "b"], f"received {found}")


@check("resume.ids", "Every event has an id of its own", source="HTML 9.2", needs=NEEDS)
def ids(case: Case) -> None:
    hub, topic = case.hub, case.hub.topic()
    with hub.listen(topic) as stream:
        places = []
        for number in range(5):
            hub.send(topic, str(number))
            stream.next()
            places.append(stream.place)
    expect(None not in places and len(set(places)) == 5, f"places are {places}")


@check("resume.every_byte", "A cut at any byte of the stream loses and repeats nothing",
       source="HTML 9.2", needs=NEEDS)  # fmt: skip
def every_byte(case: Case) -> str:
    hub, topic = case.hub, case.hub.topic()
    start = place_of_first(hub, topic)
    sent = ["one", "two\nlines", "three"]
    hub.send(topic, *sent)
    with hub.listen(topic, after=start) as stream:
        found = [message.data for message in stream.take(len(sent))]
        expect(found == sent, f"received {found}")
        length = len(stream.body)
    cuts = range(0, length + 1, 7 if case.is_short else 1)
    for cut in cuts:
        with hub.listen(topic, after=start) as stream:
            stream.up_to(cut)
            before = [message.data for message in stream.taken()]
            place = stream.place or start
            stream.close(reset=cut % 2 == 1)
        with hub.listen(topic, after=place) as stream:
            after = [message.data for message in stream.take(len(sent) - len(before))]
        expect(before + after == sent, f"cut after {cut} bytes: {before} and then {after}")
    return f"{len(cuts)} cuts in {length} bytes"


@check("resume.while_publishing", "Reconnects between publishes lose and repeat nothing",
       needs=NEEDS)  # fmt: skip
def while_publishing(case: Case) -> str:
    hub, topic = case.hub, case.hub.topic()
    count = 60 if case.is_short else 1000
    place = place_of_first(hub, topic)
    wanted = list(map(str, range(count)))
    pace = threading.Semaphore(40)  # So that history (of 100 events) always reaches back.

    def publish() -> None:
        for text in wanted:
            pace.acquire()
            hub.send(topic, text)
        hub.hang_up()

    publisher = threading.Thread(target=publish)
    publisher.start()
    found: list[str] = []
    connects = 0
    try:
        while len(found) < count:
            connects += 1
            with hub.listen(topic, after=place) as stream:
                some = stream.take(min(1 + connects % 7, count - len(found)))
                if not some:
                    raise Failed(f"after {len(found)} events nothing comes")
                place = stream.place
                stream.close(reset=connects % 2 == 1)
            found += [message.data for message in some]
            if found != wanted[: len(found)]:
                raise Failed(f"after {len(found) - len(some)} events came {_some(some)}")
            for _ in some:
                pace.release()
    finally:
        for _ in range(count):
            pace.release()
        publisher.join()
    return f"{connects} connections"


def _some(messages: list[Any]) -> list[str]:
    return [message.data for message in messages][:8]


@check("resume.quiet_stream", "A stream that was cut before its first event misses nothing",
       needs=NEEDS)  # fmt: skip
def quiet_stream(case: Case) -> None:
    hub, topic = case.hub, case.hub.topic()
    with hub.listen(topic) as stream:
        stream.settle()
        place = stream.place
    hub.send(topic, "missed")
    with hub.listen(topic, after=place) as stream:
        hub.send(topic, END)
        found = texts_of(stream)
    expect(found == ["missed"], f"the opening names place {place!r}; received {found}")


@check("resume.several_topics", "A stream of several topics resumes in one order",
       needs=(*NEEDS, "many_topics", "resume_many"))  # fmt: skip
def several_topics(case: Case) -> None:
    hub = case.hub
    topics = [hub.topic() for _ in range(3)]
    with hub.listen(*topics) as stream:
        hub.send(topics[0], "first")
        stream.next()
        place = stream.place
    sent = [str(number) for number in range(12)]
    for number, text in enumerate(sent):
        hub.send(topics[number % 3], text)
    with hub.listen(*topics, after=place) as stream:
        hub.send(topics[0], END)
        found = texts_of(stream)
    expect(found == sent, f"received {found}")


@check("resume.evicted", "A client that was away for too long is notified", needs=(*NEEDS, "gap"))
def evicted(case: Case) -> str:
    hub, topic = case.hub, case.hub.topic()
    kept = hub.adapter.history
    place = place_of_first(hub, topic)
    count = kept + kept // 2
    hub.send(topic, *map(str, range(count)))
    found, notices = followed(hub, topic, place)
    whole = found == list(map(str, range(count)))
    expect(whole or notices, f"{len(found)} of {count} events, and no notice")
    return "all events were kept" if whole else f"{count - len(found)} missing, reported"


@check("resume.silent_loss", "Without a notice, nothing is missing after a short absence",
       needs=NEEDS)  # fmt: skip
def silent_loss(case: Case) -> None:
    hub, topic = case.hub, case.hub.topic()
    place = place_of_first(hub, topic)
    count = max(hub.adapter.history - 10, 1)
    sent = list(map(str, range(count)))
    hub.send(topic, *sent)
    with hub.listen(topic, after=place) as stream:
        found = [message.data for message in stream.take(count)]
        expect(found == sent or stream.gaps, f"{len(found)} of {count} events, and no notice")


@check("resume.unknown", "An id that the hub never gave is not taken for a known one",
       needs=(*NEEDS, "gap", "unknown_id"))  # fmt: skip
def unknown(case: Case) -> str:
    hub, topic = case.hub, case.hub.topic()
    hub.send(topic, "a", "b")
    with hub.subscribe(topic, after="no-such-id") as stream:
        if stream.status != 200:
            return f"refused with {stream.status}"
        hub.send(topic, END)
        found = texts_of(stream)
        expect(found == ["a", "b"] or stream.gaps, f"received {found}, and no notice")
        return "reported" if stream.gaps else "all that is kept is sent"


def _after_restart(case: Case, number: signal.Signals) -> str:
    with case.servers.started("durable") as server:
        hub = server.hub()
        hub.begin("resume.restart")
        topic = hub.topic()
        place = place_of_first(hub, topic)
        sent = list(map(str, range(20)))
        hub.send(topic, *sent)
        hub.hang_up()
        server.restart(number)
        try:
            with hub.listen(topic, after=place) as stream:
                hub.send(topic, END)
                found = texts_of(stream)
                gaps = stream.gaps
        finally:
            hub.hang_up()
        if gaps and found != sent:
            return f"{len(sent) - len(found)} acknowledged events missing, reported"
        expect(found == sent, f"{len(found)} of {len(sent)} acknowledged events: {found[:8]}")
        return "all acknowledged events came"


@check("resume.restart", "A restart loses no acknowledged event without a notice",
       needs=(*NEEDS, "durable"), is_long=True)  # fmt: skip
def restart(case: Case) -> str:
    return _after_restart(case, signal.SIGTERM)


@check("resume.killed", "SIGKILL loses no acknowledged event without a notice",
       needs=(*NEEDS, "durable"), is_long=True)  # fmt: skip
def killed(case: Case) -> str:
    return _after_restart(case, signal.SIGKILL)


@check("resume.store_lost", "A hub that forgot everything says so", needs=(*NEEDS, "gap"),
       is_long=True)  # fmt: skip
def store_lost(case: Case) -> str:
    """Two servers one after the other: what the second one does with a place of the first."""
    with case.servers.started() as server:
        hub = server.hub()
        hub.begin("resume.store_lost")
        topic = hub.topic()
        place = place_of_first(hub, topic)
        hub.send(topic, "lost")
        hub.hang_up()
    with case.servers.started() as server:
        hub = server.hub()
        with hub.subscribe(topic, after=place) as stream:
            if stream.status != 200:
                raise ProtocolError(f"answered with {stream.status}: EventSource gives up")
            hub.send(topic, END)
            texts_of(stream)
            hub.hang_up()
            expect(stream.gaps, "no notice")
            return "reported"
