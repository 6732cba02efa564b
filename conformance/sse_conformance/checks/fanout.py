"""Fan-out: who receives what, and in which order."""

from __future__ import annotations

import threading
from contextlib import ExitStack

from sse_conformance.registry import Case, check, expect

END = "the-end"


@check("fanout.order", "Every subscriber receives the events in the order of publishing")
def order(case: Case) -> str:
    hub, topic = case.hub, case.hub.topic()
    streams, count = (5, 50) if case.is_short else (50, 400)
    sent = list(map(str, range(count)))
    with ExitStack() as stack:
        opened = [stack.enter_context(hub.listen(topic)) for _ in range(streams)]
        hub.send(topic, *sent, END)
        for stream in opened:
            found = [message.data for message in stream.until(END)]
            expect(found == sent, f"{len(found)} of {count}, or another order")
    return f"{count} events to {streams} streams"


@check("fanout.same_order", "Events of several publishers come in the same order to all")
def same_order(case: Case) -> None:
    hub, topic = case.hub, case.hub.topic()
    count = 10 if case.is_short else 20

    def publish(letter: str) -> None:
        hub.send(topic, *(f"{letter}{number}" for number in range(count)))
        hub.hang_up()

    with ExitStack() as stack:
        opened = [stack.enter_context(hub.listen(topic)) for _ in range(5)]
        threads = [threading.Thread(target=publish, args=(letter,)) for letter in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        hub.send(topic, END)
        orders = [[message.data for message in stream.until(END)] for stream in opened]
    expect(len(orders[0]) == 4 * count, f"{len(orders[0])} of {4 * count} events")
    expect(all(one == orders[0] for one in orders), "two streams have another order")
    for letter in "abcd":
        own = [text for text in orders[0] if text[0] == letter]
        expect(own == [f"{letter}{n}" for n in range(count)], "a publisher's order is changed")


@check("fanout.joined", "An event after the response head is not missed")
def joined(case: Case) -> None:
    hub, topic = case.hub, case.hub.topic()
    for number in range(20 if case.is_short else 200):
        with hub.listen(topic) as stream:
            hub.send(topic, str(number))
            # An older event may come first: hubs of several nodes hand on one after another.
            stream.until(str(number))


@check("fanout.live_only", "A stream without a place begins with new events")
def live_only(case: Case) -> None:
    hub, topic = case.hub, case.hub.topic()
    with hub.listen(topic) as witness:
        hub.send(topic, "old")
        witness.until("old")
        # A hub of several nodes may still be handing it on to the others.
        witness.settle()
    with hub.listen(topic) as stream:
        hub.send(topic, END)
        found = [message.data for message in stream.until(END)]
    expect(not found, f"received {found}")


@check("fanout.other_topics", "Events of other topics do not come")
def other_topics(case: Case) -> None:
    hub, mine, other = case.hub, case.hub.topic(), case.hub.topic()
    with hub.listen(mine) as stream:
        hub.send(other, "not mine")
        # A name that begins with the subscriber's.
        hub.send(f"{mine}x", "not mine either")
        hub.send(mine, END)
        found = [message.data for message in stream.until(END)]
    expect(not found, f"received {found}")


@check("fanout.topic_case", "Topics differ by letter case")
def topic_case(case: Case) -> None:
    hub, topic = case.hub, case.hub.topic()
    with hub.listen(topic) as stream:
        hub.send(topic.upper(), "not mine")
        hub.send(topic, END)
        found = [message.data for message in stream.until(END)]
    expect(not found, f"received {found}")


@check("fanout.several_topics", "A stream of several topics receives all of them in order",
       needs=["many_topics"])  # fmt: skip
def several_topics(case: Case) -> None:
    hub = case.hub
    topics = [hub.topic() for _ in range(3)]
    sent = [str(number) for number in range(12)]
    with hub.listen(*topics) as stream:
        for number, text in enumerate(sent):
            hub.send(topics[number % 3], text)
        hub.send(topics[0], END)
        found = [message.data for message in stream.until(END)]
    expect(found == sent, f"received {found}")


@check("fanout.once", "A topic that a subscription names twice comes once", needs=["many_topics"])
def once(case: Case) -> None:
    hub, topic = case.hub, case.hub.topic()
    with hub.listen(topic, topic) as stream:
        hub.send(topic, "once", END)
        found = [message.data for message in stream.until(END)]
    expect(found == ["once"], f"received {found}")
