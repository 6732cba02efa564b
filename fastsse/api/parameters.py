"""Query parameters of both subscribe APIs: spellings of the cursor, the form of the stream, and
notes about unknown parameters."""

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import lru_cache
from typing import Final, Literal

from fastsse.errors import InvalidSubscription
from fastsse.http.request import SWITCHES
from fastsse.subscriptions import HEARTBEAT_S_MAX, PAD_BYTES_MAX, PAD_BYTES_MIN, Dialect, InitialId
from fastsse.units import format_size, parse_duration_s, parse_size_bytes

__all__ = [
    "NOTE",
    "SPEECH_NAMES",
    "VIEW_NAMES",
    "Speech",
    "chosen_once",
    "names_cursor",
    "notes_on",
    "reads_lines",
    "switch",
]

#: The start of a comment line about a request.
NOTE: Final = ": fastsse: "
#: Parameters that `Speech.dialect` reads.
SPEECH_NAMES: Final = frozenset({"fastsse", "heartbeat", "initial_id", "pad", "ping", "refuse"})
#: Parameters that `views.ViewReader` reads.
VIEW_NAMES: Final = frozenset(
    {"deleted", "envelope", "event", "filter", "max_rate", "until", "until_data"}
)
# `lastEventId`, `Last-Event-ID`, `last_event_id`, `evs_last_event_id`, … without case and
# separators.
_CURSORS: Final = frozenset({"lasteventid", "evslasteventid"})
_JOINTS: Final = str.maketrans("", "", "-_")
# Some libraries add this to avoid caches.
_CACHE_BUSTER: Final = "_"
# Only such names are quoted, because a note is a line of the stream.
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9_.\-\[\]]{1,40}", re.ASCII)
_BRACES: Final = re.compile(r"\{[^}]*\}")
_NOTES_MAX: Final = 8
_MEANT: Final = {
    "channel": "topic",
    "channels": "topic",
    "from": "since",
    "offset": "last_event_id",
    "stream": "topic",
    "subscribe": "topic",
}


@lru_cache(maxsize=256)
def names_cursor(name: str) -> bool:
    """Whether a parameter is the id of the last received event, in any spelling."""
    return name.lower().translate(_JOINTS) in _CURSORS


def switch(field: str, text: str) -> bool:
    """The value of a switch. Raises InvalidSubscription."""
    try:
        return SWITCHES[text.lower()]
    except KeyError:
        raise InvalidSubscription(field, "must be true or false") from None


def chosen_once(pairs: Sequence[tuple[str, str]], names: Container[str]) -> dict[str, str]:
    """The parameters with these names. Raises InvalidSubscription for one that is repeated."""
    chosen: dict[str, str] = {}
    for name, value in pairs:
        if name in names:
            if name in chosen:
                raise InvalidSubscription(name, "must be given once")
            chosen[name] = value
    return chosen


def notes_on(pairs: Sequence[tuple[str, str]], known: Container[str]) -> bytes:
    """Comment lines about unknown parameters; the first eight distinct ones.

    A person sees the comment, and event parsers ignore it. So it neither stops an EventSource nor
    breaks a reader of JSON. Values are not quoted, because a value may be a secret.

    Arguments:
        pairs: the query, decoded.
        known: names of known parameters, without spellings of the cursor.
    """
    notes: dict[str, None] = {}
    for name, value in pairs:
        if name == "topic" and "," in _BRACES.sub("", value):
            notes["a topic with a comma is one topic; ask for several as topic=a&topic=b"] = None
        elif name not in known and name != _CACHE_BUSTER and not names_cursor(name):
            notes[_note(name, known)] = None
        if len(notes) == _NOTES_MAX:
            break
    return "".join(f"{NOTE}{note}\n" for note in notes).encode()


def _note(name: str, known: Container[str]) -> str:
    if not _SAFE_NAME.fullmatch(name):
        return "a parameter is unknown"
    plain = name.lower().removesuffix("[]")
    meant = _MEANT.get(plain) or next(iter(get_close_matches(plain, _LIKELY, 1, 0.7)), None)
    hint = f"; did you mean {meant}?" if meant in known or meant == "last_event_id" else ""
    return f"the parameter {name} is unknown{hint}"


_LIKELY: Final = (
    *("topic", "feed", "since", "last", "last_each", "wait"),
    *sorted(SPEECH_NAMES | VIEW_NAMES),
)


class Speech:
    """Reads the parameters for the form of a stream, within the bounds of the options.

    Arguments:
        initial_id: the value for requests without the parameter; `auto` decides by their headers.
        heartbeat_least_s: the shortest heartbeat that a client may request.
        pad_most_bytes: the longest padding that a client may request; 0: none.
        pings: whether a client may request visible pings.
    """

    def __init__(
        self,
        initial_id: Literal["auto", "true", "false", "data"] = "auto",
        heartbeat_least_s: float = 1.0,
        pad_most_bytes: int = PAD_BYTES_MAX,
        *,
        pings: bool = False,
    ) -> None:
        self._initial_id: Final = initial_id
        self._heartbeat_least_s: Final = heartbeat_least_s
        self._pad_most_bytes: Final = pad_most_bytes
        self._pings: Final = pings

    def dialect(self, base: Dialect, chosen: Mapping[str, str], notes: bytes = b"") -> Dialect:
        """`base`, changed by the parameters in SPEECH_NAMES. Raises InvalidSubscription."""
        dialect = replace(base, notes=notes) if notes else base
        if base.opens and self._initial_id != "auto":
            dialect = replace(dialect, initial_id=self._initial_id)
        if not chosen:
            return dialect
        refuse = chosen.get("refuse")
        if refuse not in (None, "status"):
            raise InvalidSubscription("refuse", "must be status")
        has_control_events = dialect.has_control_events
        if "fastsse" in chosen:
            has_control_events = switch("fastsse", chosen["fastsse"])
        return replace(
            dialect,
            has_control_events=has_control_events,
            initial_id=_initial_id(chosen.get("initial_id"), dialect.initial_id),
            heartbeat_s=self._heartbeat_s(chosen.get("heartbeat")),
            pad_bytes=self._pad_bytes(chosen.get("pad")),
            pings=self._wants_pings(chosen.get("ping"), has_control_events),
            refuses=refuse is not None,
        )

    def for_lines(self, dialect: Dialect, chosen: Mapping[str, str]) -> Dialect:
        """As `dialect`, for a request that `reads_lines`: the opening is not a separate block,
        unless a parameter or the option requests that."""
        is_free = self._initial_id == "auto" and "initial_id" not in chosen
        if is_free and dialect.initial_id == "true":
            return replace(dialect, initial_id="line")
        return dialect

    def _heartbeat_s(self, text: str | None) -> int:
        if text is None:
            return 0
        least_s = self._heartbeat_least_s
        if least_s > HEARTBEAT_S_MAX:
            raise InvalidSubscription("heartbeat", "is off here (option min_heartbeat)")
        try:
            span_s = parse_duration_s(text)
        except ValueError:
            span_s = -1.0
        if span_s != int(span_s) or not max(1.0, least_s) <= span_s <= HEARTBEAT_S_MAX:
            bounds = f"{max(1.0, least_s):g}s to {HEARTBEAT_S_MAX}s"
            raise InvalidSubscription("heartbeat", f"must be whole seconds from {bounds}")
        return int(span_s)

    def _pad_bytes(self, text: str | None) -> int:
        if text is None:
            return 0
        most_bytes = self._pad_most_bytes
        if not most_bytes:
            raise InvalidSubscription("pad", "is off here (option max_pad)")
        try:
            size_bytes = parse_size_bytes(text)
        except ValueError:
            size_bytes = 0
        if not 1 <= size_bytes <= most_bytes:
            raise InvalidSubscription("pad", f"must be 1B to {format_size(most_bytes)}")
        padded_bytes = PAD_BYTES_MIN
        while padded_bytes < size_bytes:
            padded_bytes *= 2
        return padded_bytes

    def _wants_pings(self, text: str | None, has_control_events: bool) -> bool:
        if text is None or not switch("ping", text):
            return False
        if not self._pings:
            raise InvalidSubscription("ping", "is off here (option ping)")
        if not has_control_events:
            raise InvalidSubscription("ping", "needs control events (fastsse=true)")
        return True


def _initial_id(text: str | None, otherwise: InitialId) -> InitialId:
    if text is None:
        return otherwise
    if text.lower() == "data":
        return "data"
    try:
        return "true" if SWITCHES[text.lower()] else "false"
    except KeyError:
        raise InvalidSubscription("initial_id", "must be true, false or data") from None


def reads_lines(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the client may pass a block without data to its application as an empty event.

    An EventSource accepts `text/event-stream` and asks for an uncached answer (WHATWG HTML §9.2.2:
    cache mode `no-store`, which the Fetch standard sends as `Cache-Control: no-cache`). Clients of
    token streams accept JSON, httpx-sse sends `no-store`, and the `fetch` of a script sends
    `Sec-Fetch-Mode` without `no-cache`. A request without any of these is treated as an
    EventSource, because an unneeded id does less harm than a missing one.
    """
    accept = headers.get(b"accept", b"*/*").lower()
    if b"text/event-stream" not in accept and b"*/*" not in accept and b"text/*" not in accept:
        return True
    control = headers.get(b"cache-control", b"").lower()
    if b"no-cache" in control:
        return False
    return b"no-store" in control or b"sec-fetch-mode" in headers
