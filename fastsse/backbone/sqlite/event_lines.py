"""Events as lines of an export, and back."""

from typing import Any, Final

import orjson

from fastsse.backbone.sqlite.places import fits
from fastsse.directives import BLANK, Directives, read_control
from fastsse.entries import Entry, encode_entries
from fastsse.events import DATA_BYTES, DATA_JSON, DATA_TEXT, Event
from fastsse.positions import format_position, parse_position, position_ms, uuid_of_position

__all__ = ["event_fields", "read_event"]


def event_fields(entry: Entry) -> dict[str, object]:
    """An entry's event, taken out of its frame again (WHATWG HTML 9.2.6)."""
    fields: dict[str, bytes] = {}
    data: list[bytes] = []
    for line in entry.frame.body.split(b"\n")[:-2] if entry.frame.events else ():
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        else:
            fields[name.decode()] = value
    own_id, event, retry = entry.own_id, fields.get("event"), fields.get("retry")
    uuid = own_id is None and fields.get("id") == uuid_of_position(entry.position)
    return {
        "position": format_position(entry.position).decode(),
        "topics": entry.topics,
        "id": None if own_id is None else own_id.decode(),
        "event": None if event is None else event.decode(),
        "retry": None if retry is None else int(retry),
        "private": entry.frame.private,
        "id_style": "uuid" if uuid else "position",
        "data": b"\n".join(data).decode(),
    } | _extra_fields(entry)


def _extra_fields(entry: Entry) -> dict[str, object]:
    """The optional fields; absent when the entry has none."""
    fields: dict[str, object] = {}
    if entry.frame.data_kind:
        fields["data_kind"] = _KINDS[entry.frame.data_kind]
    if entry.extras is not None and entry.extras.meta is not None:
        fields["meta"] = orjson.Fragment(entry.extras.meta)
    if not entry.frame.events:
        control = None if entry.extras is None else entry.extras.control
        fields["control"] = orjson.Fragment(control or BLANK)
    if entry.frame.expires_ms:
        fields["expires"] = entry.frame.expires_ms
    return fields


_KINDS: Final = {DATA_TEXT: "text", DATA_JSON: "json", DATA_BYTES: "bytes"}
_KIND_NUMBERS: Final = {name: kind for kind, name in _KINDS.items()}
_FIELDS: Final = {
    "position",
    "topics",
    "id",
    "event",
    "retry",
    "private",
    "id_style",
    "data",
    "data_kind",
    "meta",
    "control",
    "expires",
}


def read_event(fields: dict[str, Any]) -> Entry:
    """The entry of a line. Raises ValueError, KeyError, TypeError or InvalidEvent."""
    unknown = fields.keys() - _FIELDS
    if unknown:
        raise ValueError(f"unknown field {sorted(unknown)[0]!r}")
    text = fields["position"]
    position = parse_position(text) if isinstance(text, str) else None
    if position is None or not fits(position):
        raise ValueError(f"{text!r} is no position that can be stored")
    style = fields.get("id_style", "position")
    if style not in ("position", "uuid") or not isinstance(fields.get("private", False), bool):
        raise ValueError("id_style must be position or uuid, private true or false")
    kind = _KIND_NUMBERS.get(fields.get("data_kind", "text"))
    if kind is None:
        raise ValueError("data_kind must be text, json or bytes")
    event = Event(
        fields["topics"],
        fields["data"],
        fields.get("event"),
        fields.get("id"),
        fields.get("retry"),
        private=fields.get("private", False),
        id_style=style,
        meta=fields.get("meta"),
        data_kind=kind,
        directives=_directives(fields, position),
    )
    return encode_entries([position], [event])[0]


def _directives(fields: dict[str, Any], position: int) -> Directives | None:
    """What makes an event a control entry, or has it expire."""
    control, expires = fields.get("control"), fields.get("expires")
    if expires is not None and type(expires) is not int:
        raise ValueError("expires must be milliseconds")
    if expires is not None:
        return Directives(ttl_ms=max(1, expires - position_ms(position)))
    if control is None:
        return None
    text = orjson.dumps(control)
    read_control(text)
    return Directives(control=text)
