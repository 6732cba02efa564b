"""What a listener asks for of the events of its topics, and the envelopes that it may get."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from fastsse.client.http import Params

__all__ = ["Envelope", "StreamView"]

_MEMBERS: Final = {"topic", "id", "event", "data", "meta", "time"}


@dataclass(frozen=True, slots=True)
class StreamView:
    """Which events a stream of a fastsse server is sent, and in which form.

    Arguments:
        event: only these types; `message` is an event without a type.
        filter: only events that match this expression, such as `data.price > 5`.
        envelope: with topic, meta and time; then `ReceivedEvent.envelope` has them.
        max_rate: of each topic and type at most so many events a second, the newest.
        until: the stream is over behind an event of one of these types.
        until_data: it is over behind an event with this data, such as `[DONE]`.
        deleted: with `fastsse.deleted` events, which say what was deleted.
    """

    event: Sequence[str] = ()
    filter: str | None = None
    envelope: bool = False
    max_rate: float | None = None
    until: Sequence[str] = ()
    until_data: str | None = None
    deleted: bool = False

    @property
    def params(self) -> Params:
        """The parameters of the request."""
        values = {
            "event": ",".join(self.event) or None,
            "filter": self.filter,
            "envelope": "json" if self.envelope else None,
            "max_rate": None if self.max_rate is None else f"{self.max_rate:g}",
            "until": ",".join(self.until) or None,
            "until_data": self.until_data,
            "deleted": "true" if self.deleted else None,
        }
        return [(name, value) for name, value in values.items() if value is not None]


@dataclass(frozen=True, slots=True)
class Envelope:
    """An event with all that its publisher sent.

    Attributes:
        topics: those that the stream may see; none where it may see none of them.
        id: the event's id.
        event: its type; None is the default one.
        data: what the publisher sent as JSON, parsed; else text.
        meta: named values.
        time_ms: when it was published, in unix milliseconds; None where it is not known.
    """

    topics: tuple[str, ...]
    id: str | None
    event: str | None
    data: Any
    meta: Mapping[str, str | int | float | bool]
    time_ms: int | None

    @classmethod
    def parse(cls, data: str) -> Self | None:
        """The envelope that the data of an event is; None when it is not one."""
        try:
            members = json.loads(data)
        except ValueError:
            return None
        if not isinstance(members, dict) or members.keys() != _MEMBERS:
            return None
        topic, meta, time_ms = members["topic"], members["meta"], members["time"]
        topics = (topic,) if isinstance(topic, str) else topic or ()
        if not isinstance(topics, list | tuple) or not isinstance(time_ms, int):
            return None
        return cls(
            tuple(map(str, topics)),
            members["id"],
            members["event"],
            members["data"],
            meta if isinstance(meta, dict) else {},
            time_ms,
        )
