"""The view of a listener: which events it asks for, in which form; and envelopes."""

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
        filter: only events that match this expression, such as `data.price > 5`; at most 2,048
            bytes.
        envelope: events have topic, meta and time too (`ReceivedEvent.envelope`).
        max_rate: at most this many events a second of each topic and type, the newest; 0.1 to 100.
        until: the stream is over behind an event of one of these types.
        until_data: the stream is over behind an event with this data, such as `[DONE]`.
        deleted: `fastsse.deleted` events report deletions.

    The server checks the values: a wrong one makes the stream raise Refused with status 400.
    """

    event: Sequence[str] = ()
    filter: str | None = None
    envelope: bool = False
    max_rate: float | None = None
    until: Sequence[str] = ()
    until_data: str | None = None
    deleted: bool = False

    def is_met(self, event: str, data: str) -> bool:
        """Whether a stream is over behind an event of this type with this data (`until`)."""
        if event in self.until:
            return True
        if self.until_data is None:
            return False
        envelope = Envelope.parse(data) if self.envelope else None
        return (data if envelope is None else envelope.data) == self.until_data

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
    """An event with all its fields.

    Attributes:
        topics: the topics that the stream may see; perhaps none.
        id: the event's id.
        event: its type; None: the default type.
        data: parsed if the publisher sent JSON, else text.
        meta: named values of the publisher.
        time_ms: when it was published, in unix milliseconds; None: not known.
    """

    topics: tuple[str, ...]
    id: str | None
    event: str | None
    data: Any
    meta: Mapping[str, str | int | float | bool]
    time_ms: int | None

    @classmethod
    def parse(cls, data: str) -> Self | None:
        """The envelope in the data of an event; None if it is none."""
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
