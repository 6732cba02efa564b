"""`/admin/explain`: why a topic's streams receive nothing, as far as the server can know.

Each worker reports what it knows of the topic. The answer is a list of checks, in the order in
which a person would make them: first the state of the service (`control/condition.py`), then the
topic. `fastsse why` shows them after its own checks from outside.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

from fastsse.api.admin.topics import subscribers_of, topic_facts
from fastsse.checks import NOTE, OK, WRONG, Check
from fastsse.config.options import HistoryOptions, StreamOptions
from fastsse.hub import Hub
from fastsse.hub.topics import Topic
from fastsse.selectors import compile_selector
from fastsse.units import format_duration, format_size

__all__ = ["Explainer", "checks_of"]

Reply = Callable[[object], None]
# Topics whose names are compared in one turn, and in all.
_NAMES_A_TURN: Final = 5_000
_NAMES_MAX: Final = 500_000
_TEMPLATES_A_TURN: Final = 1_000
_NEAR_SHOWN: Final = 5
_QUIET_S: Final = 3600.0
# Types that an EventSource gives to events of its own.
_OWN_TYPES: Final = ("error", "open")
# What Go's bufio.Scanner and asyncio's readline take at most.
_LINE_BYTES: Final = 64 * 1024


class Explainer:
    """Answers `explain` at a worker.

    Arguments:
        hub: knows topics, history and streams.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def __call__(self, question: Mapping[str, Any], reply: Reply) -> None:
        """Answers with the facts of a topic, and names like it."""
        name, hub = str(question["topic"]), self._hub
        if "{" in name and not compile_selector(name).is_exact:
            self._look_at_template(name, reply)
            return
        answer: dict[str, object] = {
            "history_is_empty": not hub.history.events,
            "near": [],
        }
        topic = hub.topics.by_name.get(name)

        def counted(counts: Counter[Topic], everything: int) -> None:
            if topic is not None:
                answer["topic"] = topic_facts(topic, counts[topic], hub.history)
                answer["last"] = _last(topic)
            answer["everything"] = everything
            if topic is not None and topic.log is not None:
                reply(answer)
            else:
                self._find_near(name, answer, reply)

        subscribers_of(hub.channels, [] if topic is None else [topic], counted)

    def _look_at_template(self, text: str, reply: Reply) -> None:
        """Counts the topics that a template matches, and finds topics that it misses because a
        variable stops at a slash."""
        names = list(self._hub.topics.by_name)[:_NAMES_MAX]
        strict, wide = compile_selector(text).matches, _widened(text)
        count, near = 0, list[str]()

        def turn(at: int) -> None:
            nonlocal count
            some = names[at : at + _TEMPLATES_A_TURN]
            for name in some:
                if strict(name):
                    count += 1
                elif len(near) < _NEAR_SHOWN and wide(name):
                    near.append(name)
            if at + len(some) < len(names):
                asyncio.get_running_loop().call_soon(turn, at + len(some))
            else:
                reply({"template": count, "near": near})

        turn(0)

    def _find_near(self, name: str, answer: dict[str, object], reply: Reply) -> None:
        """Finds names with events that a person could confuse with this one."""
        names = list(self._hub.topics.by_name)[:_NAMES_MAX]
        wanted = _plain(name)
        near: list[str] = []

        def turn(at: int) -> None:
            some = names[at : at + _NAMES_A_TURN]
            near.extend(one for one in some if one != name and _plain(one) == wanted)
            if at + len(some) < len(names) and len(near) < _NEAR_SHOWN:
                asyncio.get_running_loop().call_soon(turn, at + len(some))
                return
            answer["near"] = near[:_NEAR_SHOWN]
            reply(answer)

        turn(0)


def _widened(template: str) -> Callable[[str], bool]:
    """Whether a topic matches when variables match slashes too."""
    return compile_selector(re.sub(r"\{(\w+)\}", r"{+\1}", template)).matches


def _plain(name: str) -> str:
    """A name without differences that people overlook: case, outer slashes, blanks, escapes."""
    return unquote(name).strip(" /").casefold().replace("//", "/").replace(".", "/")


def _last(topic: Topic) -> dict[str, object] | None:
    """The type of the newest event kept, and how many of the newest are private."""
    if topic.log is None:
        return None
    newest = topic.log.frames[-1]
    kind = "message"
    for line in newest.body.split(b"\n")[:3]:
        if line.startswith(b"event: "):
            kind = line.removeprefix(b"event: ").decode(errors="replace")
    longest = max(map(len, newest.body.split(b"\n")))
    return {"type": kind, "private": newest.private, "line_bytes": longest}


def checks_of(
    answers: Sequence[Mapping[str, Any]],
    name: str,
    streams: StreamOptions,
    history: HistoryOptions,
    *,
    is_cut: bool = False,
) -> list[Check]:
    """The checks for a topic, from what all workers know. `is_cut`: clients are disconnected for
    lag, so that none is there at times."""
    if any("template" in answer for answer in answers):
        return [_template(answers, name)]
    known = [answer for answer in answers if answer.get("topic")]
    there = _streams(answers, known, name, is_cut=is_cut)
    # The streams of an ended topic are over, so that comes first.
    checks = _state(known, name)
    checks += [_known(answers, known, name), _published(known, name), there]
    checks += _private(known, name, history)
    checks += _type(known)
    checks += _line(known)
    checks.append(_kept(name, history))
    checks.append(_lag(name, streams, history))
    return checks


def _template(answers: Sequence[Mapping[str, Any]], text: str) -> Check:
    count = max(answer.get("template", 0) for answer in answers)
    near = sorted({one for answer in answers for one in answer.get("near", ())})
    if count:
        return Check("template", OK, f"The template {text} matches {count} topics that are kept.")
    if near:
        return Check(
            "template",
            WRONG,
            f"The template {text} matches no topic, because a variable stops at a slash, a blank "
            f"and letters beyond ASCII; there is {near[0]}.",
            f"Subscribe to {re.sub(r'{(?=[a-zA-Z_0-9])', '{+', text)}, or to *.",
        )
    return Check(
        "template",
        WRONG,
        f"The template {text} matches no topic that is kept.",
        "fastsse topics list shows the names.",
    )


def _known(
    answers: Sequence[Mapping[str, Any]], known: Sequence[Mapping[str, Any]], name: str
) -> Check:
    near = sorted({one for answer in answers for one in answer.get("near", ())})
    has_events = any(answer["topic"]["events"] for answer in known)
    has_streams = any(answer["topic"]["subscribers"] for answer in known)
    if near and not has_events:
        shown = ", ".join(near)
        return Check(
            "topic name",
            WRONG,
            f"No event of {name} is kept, but there is a topic {shown}. Names are compared byte by "
            "byte.",
            f"Subscribe to {near[0]}, or publish to {name}.",
        )
    if has_events or has_streams:
        return Check("topic name", OK, f"The server knows the topic {name}.")
    return Check(
        "topic name",
        WRONG,
        f"The server knows no topic {name}: nothing of it is kept, and no stream names it.",
        f"fastsse topics list; fastsse publish {name} test",
    )


def _published(known: Sequence[Mapping[str, Any]], name: str) -> Check:
    ages_s = [one["topic"]["last_age_s"] for one in known if one["topic"]["events"]]
    if not ages_s:
        return Check(
            "published",
            WRONG,
            "No event of the topic is kept: none was published, or all were evicted.",
            f"fastsse publish {name} test; history_events and history_age say what is kept.",
        )
    age_s, count = min(ages_s), max(one["topic"]["events"] for one in known)
    says = f"{count} events are kept; the newest came {format_duration(round(age_s, 3))} ago."
    if age_s > _QUIET_S:
        do = "Look at the publisher: its answer is 200 with an id, or says what is wrong."
        return Check("published", NOTE, says, do)
    return Check("published", OK, says)


def _streams(
    answers: Sequence[Mapping[str, Any]],
    known: Sequence[Mapping[str, Any]],
    name: str,
    *,
    is_cut: bool,
) -> Check:
    count = sum(one["topic"]["subscribers"] for one in known)
    everything = sum(answer.get("everything", 0) for answer in answers)
    if count or everything:
        return Check("streams", OK, f"{count} streams have the topic, {everything} have all (*).")
    return Check(
        "streams",
        NOTE if is_cut else WRONG,
        "No stream has the topic now: the client is not connected, or asked for another one.",
        f"fastsse connections --topic {name}; fastsse listen {name}",
    )


def _state(known: Sequence[Mapping[str, Any]], name: str) -> list[Check]:
    if any(one["topic"]["state"] == "ended" for one in known):
        return [
            Check(
                "state",
                WRONG,
                f"The topic {name} has ended: it takes no events, and its streams are over.",
                "Publish to another topic; an ended one opens again when nothing of it is kept.",
            )
        ]
    return []


def _private(known: Sequence[Mapping[str, Any]], name: str, history: HistoryOptions) -> list[Check]:
    rule = history.rule(name)
    by_rule = rule is not None and rule.private
    if not by_rule and not any(one["last"] and one["last"]["private"] for one in known):
        return []
    why = "A rule makes events of this topic private" if by_rule else "The newest event is private"
    return [
        Check(
            "private",
            NOTE,
            f"{why}: only streams whose token grants the topic receive it.",
            f"fastsse token explain --topic {name} shows whether a token does; "
            f"fastsse token mint --subscribe {name} makes one that does.",
        )
    ]


def _type(known: Sequence[Mapping[str, Any]]) -> list[Check]:
    kinds = {one["last"]["type"] for one in known if one["last"]} - {"message"}
    if not kinds:
        return []
    kind = sorted(kinds)[0]
    if kind in _OWN_TYPES:
        return [
            Check(
                "event type",
                NOTE,
                f"The newest event has the type {kind}, which is also the name of an event that "
                "EventSource makes itself.",
                "Publish it with another type.",
            )
        ]
    return [
        Check(
            "event type",
            NOTE,
            f"The newest event has the type {kind}; onmessage of an EventSource receives only "
            "events without one.",
            f'source.addEventListener("{kind}", …)',
        )
    ]


def _line(known: Sequence[Mapping[str, Any]]) -> list[Check]:
    longest = max((one["last"].get("line_bytes", 0) for one in known if one["last"]), default=0)
    if longest < _LINE_BYTES:
        return []
    return [
        Check(
            "line length",
            NOTE,
            f"The newest event has a line of {format_size(longest)}. Some readers end the stream "
            "at 64 KiB, return, and receive it again.",
            "max_event; docs/guides/client-libraries.md#limits-for-a-line.",
        )
    ]


def _kept(name: str, history: HistoryOptions) -> Check:
    limits = history.limits(name)
    if not limits.events or not limits.bytes:
        return Check(
            "history",
            NOTE,
            "Nothing of the topic is kept: a client that was away receives a gap.",
            "history_events, history_bytes, or a rule of [[topics]].",
        )
    return Check(
        "history",
        OK,
        f"Kept are {limits.events} events, {format_size(limits.bytes)}, "
        f"{format_duration(limits.age_s)}.",
    )


def _lag(name: str, streams: StreamOptions, history: HistoryOptions) -> Check:
    policy = history.limits(name).lag_policy or streams.lag_policy
    says = (
        f"The lag policy is {policy}: it acts at {format_size(streams.max_lag)} or "
        f"{format_duration(streams.max_lag_time)}."
    )
    return Check("lag policy", OK, says)
