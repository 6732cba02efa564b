"""An adapter: how one hub is subscribed to, published to and started, as a TOML file says it.

The README's table "Adapters" describes every key.
"""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_from_bytes

from sse_conformance import tokens
from sse_conformance.eventstream import Message

FOLDER = Path(__file__).with_name("adapters")
_TABLES = {
    "name", "title", "documentation", "settings", "listen", "publish", "received", "gap",
    "tokens", "history", "not_supported", "server",
}  # fmt: skip
_FORM = "application/x-www-form-urlencoded"


class AdapterError(Exception):
    """The file is not an adapter; the message names the key."""


@dataclass(frozen=True, slots=True)
class Event:
    """What is published. `data` may be bytes that are not text."""

    topic: str
    data: str | bytes
    type: str | None = None
    id: str | None = None
    private: bool = False

    @property
    def raw(self) -> bytes:
        return self.data if isinstance(self.data, bytes) else self.data.encode()


@dataclass(frozen=True, slots=True)
class Request:
    """A request before it is written."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes | None = None


def names() -> list[str]:
    """The adapters that come with the suite."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str) -> Adapter:
    """An adapter by its name, or by the path of a TOML file."""
    path = FOLDER / f"{name}.toml" if name in names() else Path(name)
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise AdapterError(f"{name}: no such file; known are {', '.join(names())}") from None
    except tomllib.TOMLDecodeError as error:
        raise AdapterError(f"{path}: {error}") from None
    if unknown := table.keys() - _TABLES:
        raise AdapterError(f"{path}: unknown keys: {', '.join(sorted(unknown))}")
    for required in ("name", "listen", "publish"):
        if required not in table:
            raise AdapterError(f"{path}: {required} is missing")
    return Adapter(table, path)


class Adapter:
    """What the checks know about one hub."""

    def __init__(self, table: dict[str, Any], path: Path) -> None:
        self.path = path
        self.name: str = table["name"]
        self.title: str = table.get("title", self.name)
        self.documentation: str = table.get("documentation", "")
        self.settings: str = table.get("settings", "")
        self.not_supported: dict[str, str] = table.get("not_supported", {})
        self.server: dict[str, Any] = table.get("server", {})
        #: How many events of a topic are kept, as the hub is configured.
        self.history: int = table.get("history", {}).get("events", 0)
        self._listen = table["listen"]
        self._publish = table["publish"]
        self._received = table.get("received", {})
        self._gap = table.get("gap", {})
        self._tokens = table.get("tokens", {})

    def missing(self, capability: str) -> str | None:
        """Why the hub has not got a capability; None when it has."""
        return self.not_supported.get(capability)

    # Subscribing.

    def listen(
        self, topics: Iterable[str], place: Any = None, *, in_query: bool = False, token: str = ""
    ) -> Request:
        """A subscription, after a place that an earlier stream gave."""
        path = self._target(topics, place)
        headers = [("Accept", "text/event-stream"), *self._listen.get("headers", {}).items()]
        if place is not None and not self.captures:
            if in_query:
                path = _with_query(path, self._listen["cursor"].format(id=quote(place, safe="")))
            else:
                headers.append(("Last-Event-ID", place))
        if token:
            path, more = self._with_token(path, token)
            headers += more
        return Request("GET", path, tuple(headers))

    def _target(self, topics: Iterable[str], place: Any) -> str:
        captured = dict(place) if self.captures and place is not None else {}
        template = self._listen["resumed" if captured else "topic"]
        join = self._listen.get("join", "&")
        values = {name: quote(str(value), safe="") for name, value in captured.items()}
        parts = [template.format(topic=quote(topic, safe=""), **values) for topic in topics]
        return str(self._listen["path"]).format(topics=join.join(parts))

    def _with_token(self, path: str, token: str) -> tuple[str, list[tuple[str, str]]]:
        how = self._tokens["listen"]
        if how.startswith("header:"):
            name, _, value = how.removeprefix("header:").partition(" ")
            return path, [(name, value.format(token=token))]
        return _with_query(path, how.format(token=token)), []

    @property
    def captures(self) -> dict[str, list[str]]:
        """JSON paths of what a place consists of; without them it is the last event id."""
        found: dict[str, list[str]] = self._listen.get("captures", {})
        return found

    @property
    def first_captures(self) -> dict[str, Any]:
        """What holds of a place until a message says otherwise."""
        found: dict[str, Any] = self._listen.get("start", {})
        return found

    # Publishing.

    def publish(self, event: Event, token: str | None = None) -> Request:
        """A publish. `token` replaces the publisher's; the empty text sends none."""
        headers = dict(self._publish.get("headers", {}))
        if token is None:
            token = self.publish_token((event.topic,)) if "publish" in self._tokens else ""
        if token:
            name, _, value = self._tokens["publish"].partition(": ")
            headers[name] = value.format(token=token)
        path = str(self._publish["path"]).format(topic=quote(event.topic, safe=""))
        values = self._fields(event)
        body = self._body(event, values, headers)
        for name, value in values.items():
            if name.startswith("header:"):
                headers[name.removeprefix("header:")] = value
            elif self._publish["body"] == "data":
                path = _with_query(path, f"{name}={quote(value, safe='')}")
        return Request(self._publish.get("method", "POST"), path, tuple(headers.items()), body)

    def _fields(self, event: Event) -> dict[str, str]:
        """The hub's names of the fields beyond topic and data, with values."""
        given = {"event": event.type, "id": event.id, "private": "true" if event.private else None}
        fields = self._publish.get("fields", {})
        return {fields[ours]: value for ours, value in given.items() if value is not None}

    def _body(self, event: Event, values: dict[str, str], headers: dict[str, str]) -> bytes:
        kind = self._publish["body"]
        if kind == "data":
            headers.setdefault("Content-Type", "text/plain")
            return event.raw
        if kind == "form":
            headers["Content-Type"] = _FORM
            form = self._publish["form"]
            pairs = [(form["topic"], event.topic.encode()), (form["data"], event.raw)]
            pairs += [(name, value.encode()) for name, value in values.items()]
            return "&".join(f"{k}={quote_from_bytes(v, safe='')}" for k, v in pairs).encode()
        headers["Content-Type"] = "application/json"
        texts = {"topic": event.topic, "data": event.raw.decode(), "frame": _frame(event)}
        return json.dumps(_filled(self._publish["json"], texts)).encode()

    def sends_in_header(self, field: str) -> bool:
        """Whether a field of a publish is a header of the request."""
        return str(self._publish.get("fields", {}).get(field, "")).startswith("header:")

    @property
    def takes_bytes(self) -> bool:
        """Whether data that is not UTF-8 can be sent to it at all."""
        return self._publish["body"] != "json"

    # What came.

    def unwrapped(self, message: Message) -> Message | None:
        """The published event in a message; None for the hub's own messages."""
        if any(_fits(message.type, kind) for kind in self._received.get("ignore", ())):
            return None
        path = self._received.get("data")
        if path is None:
            return message
        found = _at(message.data, path)
        if found is None:
            # Where every event is JSON, another text is not the publisher's: it is shown.
            return None if path else message
        return Message(str(found), message.type, message.id)

    def items(self, message: Message, topic: str) -> list[Message]:
        """The events of a message that holds a list of them, each as a message."""
        path = self._received.get("list")
        found = _at(message.data, path.format(topic=topic)) if path else None
        wrap = self._received.get("list_as", "")
        texts = [json.dumps({wrap: item}) for item in found or ()]
        return [Message(text, message.type, message.id) for text in texts]

    def captured(self, message: Message, topic: str) -> dict[str, Any]:
        """The parts of a place that a message names."""
        found = {}
        for name, paths in self.captures.items():
            for path in paths:
                value = _at(message.data, path.format(topic=topic))
                if value is not None:
                    found[name] = value
                    break
        return found

    def reports_gap(self, message: Message, topic: str) -> bool:
        """Whether a message says that events are missing."""
        if "event" in self._gap:
            return bool(message.type == self._gap["event"])
        if "asked" in self._gap:
            paths = (self._gap[name].format(topic=topic) for name in ("asked", "resumed"))
            asked, resumed = (_at(message.data, path) for path in paths)
            return asked is True and resumed is not True
        return False

    def head_reports_gap(self, headers: dict[str, str], place: Any) -> bool:
        """Whether a response head says so: it names another place than was asked for."""
        found = headers.get(self._gap.get("header", "").lower())
        return found is not None and found != str(place)

    # Tokens.

    def publish_token(self, topics: Iterable[str], **changes: Any) -> str:
        """A publisher's token for these topics; `changes` as in `listen_token`."""
        return self._token("publish_claims", topics, **changes)

    def listen_token(self, topics: Iterable[str], **changes: Any) -> str:
        """A subscriber's token for private events of these topics."""
        return self._token("listen_claims", topics, **changes)

    def _token(
        self, claims: str, topics: Iterable[str], *, lifetime_s: float = 600, key: str = "",
        algorithm: str = "HS256",
    ) -> str:  # fmt: skip
        if "secret" in self._tokens and claims == "publish_claims":
            return str(self._tokens["secret"])
        text = self._tokens[claims].replace("{topics}", json.dumps(list(topics)))
        now = int(time.time())
        made = {**json.loads(text), "iat": now, "exp": int(now + lifetime_s)}
        return tokens.signed(made, key or self._tokens["key"], algorithm=algorithm)


def _with_query(path: str, more: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}{more}"


def _filled(template: Any, texts: dict[str, str]) -> Any:
    """A JSON value with `{name}` replaced."""
    if isinstance(template, dict):
        return {key: _filled(value, texts) for key, value in template.items()}
    if isinstance(template, list):
        return [_filled(value, texts) for value in template]
    return texts.get(template[1:-1], template) if isinstance(template, str) else template


def _frame(event: Event) -> str:
    """For hubs whose publishers write the event stream themselves."""
    lines = [f"event: {event.type}"] if event.type else []
    lines += [f"id: {event.id}"] if event.id else []
    text = event.raw.decode().replace("\r\n", "\n").replace("\r", "\n")
    return "\n".join([*lines, *(f"data: {line}" for line in text.split("\n")), "", ""])


def _fits(kind: str, pattern: str) -> bool:
    return kind.startswith(pattern[:-1]) if pattern.endswith("*") else kind == pattern


def _at(text: str, path: str) -> Any:
    """A member of a JSON text by names with dots between; None when it is not there."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    for name in filter(None, path.split(".")):
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    return found
