"""Whether an event matches a rule, and the templates of a rule filled from an event."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

from fastsse.config.eventrules import EventRule
from fastsse.events import DATA_TEXT
from fastsse.expressions import compile_expression, matches
from fastsse.selectors import compile_selector
from fastsse.sources.payloads import PayloadWords
from fastsse.sources.topic_templates import PlaceholderText

__all__ = ["Matcher", "Seen"]


class Seen:
    """An event as rules see it. Its parts are parsed when a rule asks for them.

    Arguments:
        topics, event, meta, data_kind: as of Event.
        data: gives the data.
    """

    __slots__ = ("_data", "_words", "data_kind", "event", "meta", "topics")

    def __init__(
        self,
        topics: Sequence[str],
        event: bytes | None,
        meta: bytes | None,
        data: Callable[[], bytes],
        data_kind: int = DATA_TEXT,
    ) -> None:
        self.topics = topics
        self.event = event
        self.meta = meta
        self.data_kind = data_kind
        self._data: bytes | Callable[[], bytes] = data
        self._words: PayloadWords | None = None

    @property
    def data(self) -> bytes:
        if not isinstance(self._data, bytes):
            self._data = self._data()
        return self._data

    def fill(self, template: PlaceholderText) -> str:
        """The text of a template. Raises ValueError where a word is missing."""
        if self._words is None:
            value = _parsed(self.data)
            meta = None if self.meta is None else orjson.loads(self.meta)
            self._words = PayloadWords({"topic": self.topics[0]}, value, meta)
        return template.fill(self._words)


class Matcher:
    """The condition of a rule.

    Arguments:
        rule: from the options.
    """

    def __init__(self, rule: EventRule) -> None:
        self._selectors: Final = [compile_selector(text) for text in rule.topics]
        self._when: Final = None if rule.when is None else compile_expression(rule.when)

    def matches(self, seen: Seen) -> bool:
        """Whether an event matches. An event whose evaluation fails does not match. O(bytes that
        the expression reads)."""
        if not any(one.matches(topic) for one in self._selectors for topic in seen.topics):
            return False
        return self._when is None or bool(
            matches(
                self._when,
                topics=seen.topics,
                data=seen.data,
                event=seen.event,
                meta=seen.meta,
                data_kind=seen.data_kind,
            )
        )


def _parsed(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
