"""Messages of Kafka, and the words of templates that they have."""

import contextlib
from typing import Any, Final

from fastsse.directives import Producer
from fastsse.sources.source import Words

__all__ = ["KafkaMessage"]

# Longer header values and keys can't be a topic and are not decoded.
WORD_BYTES_MAX: Final = 1024


class KafkaMessage:
    """A message of Kafka."""

    __slots__ = ("_message", "payload", "producer")

    def __init__(self, message: Any, producer: Producer | None = None) -> None:
        self._message = message
        self.producer = producer
        self.payload: bytes = message.value() or b""

    @property
    def origin(self) -> str:
        """As Message: topic, partition, offset."""
        message = self._message
        return f"{message.topic()}/{message.partition()}/{message.offset()}"

    def words(self) -> Words:
        """As Message."""
        return _KafkaWords(self._message)


class _KafkaWords(dict[str, str]):
    """The words of a message; each is made when a template asks for it."""

    __slots__ = ("_message",)

    def __init__(self, message: Any) -> None:
        self._message = message

    def whole(self) -> dict[str, str]:
        """All words that can be made."""
        names = [f"header.{name}" for name, _ in self._message.headers() or ()]
        found: dict[str, str] = {}
        for name in ("topic", "partition", "offset", "key", *names):
            with contextlib.suppress(KeyError, ValueError):
                found[name] = self[name]
        return found

    def __missing__(self, name: str) -> str:
        message = self._message
        if name == "topic":
            return str(message.topic())
        if name == "key":
            return _text(message.key(), name)
        if name.startswith("header."):
            return self._header(name)
        if name in ("partition", "offset"):
            return str(message.partition() if name == "partition" else message.offset())
        raise KeyError(name)

    def _header(self, name: str) -> str:
        # The last one of a name holds (KIP-82).
        for header, value in reversed(self._message.headers() or ()):
            if header == name[7:]:
                return _text(value, name)
        raise KeyError(name)

    def keys(self) -> Any:
        """The names of all, for dead letters."""
        headers = [f"header.{name}" for name, _ in self._message.headers() or ()]
        named = ["topic", "partition", "offset", *headers]
        return [*named, "key"] if self._message.key() is not None else named

    def __iter__(self) -> Any:
        return iter(self.keys())


def _text(value: bytes | str | None, name: str) -> str:
    if value is None:
        raise KeyError(name)
    if len(value) > WORD_BYTES_MAX:
        raise ValueError(f"{name} is longer than {WORD_BYTES_MAX} bytes")
    # Bytes that are no text make an event that is refused.
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")
