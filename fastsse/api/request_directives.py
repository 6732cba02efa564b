"""Directives in the headers of a publish, and the scope of its keys.

`Idempotency-Key` is the key of the whole request; `If-Match` is `expect` for the only event of one.
Both may be quoted, as in their specifications. Keys belong to the subject of the token, so
that no publisher can use or discover the keys of another.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from fastsse._batch import is_plain
from fastsse._intake import BegunDigest
from fastsse.api.access import CREDENTIAL_NAMES
from fastsse.auth.rights import Rights
from fastsse.directives import (
    SCOPE_BYTES,
    Directives,
    RequestKey,
    check_key,
    directives_of,
    is_delayed,
)
from fastsse.errors import InvalidEvent
from fastsse.events import Event
from fastsse.http.request import Request, Target

__all__ = ["Asked", "asked_of", "check_streamed", "digested", "key_scope", "scoped"]

KEY_HEADER: Final = "Idempotency-Key"
EXPECT_HEADER: Final = "If-Match"


def asked_of(request: Request, events: Sequence[Event], rights: Rights | None) -> Sequence[Event]:
    """The events with the directives of the headers, and keys that name the subject.

    Raises InvalidEvent. O(events), O(1) for most requests: without directives and headers.
    """
    headers = request.headers
    key, expect = headers.get(b"idempotency-key"), headers.get(b"if-match")
    if key is None and expect is None and is_plain(events):
        return events
    events = list(events)  # Each access to a batch of columns makes a new event.
    scope = key_scope(rights)
    _check(events, key is not None, expect)
    for event in events:
        event.direct(_scoped(event.directives, scope))
    first = events[0]
    if expect is not None:
        _add(first, expect=_expected(expect))
    if key is not None:
        media_type = headers.get(b"content-type", b"")
        asked = Asked(request.target, key, expect, media_type, bytes(request.body))
        _add(first, request=asked.request(rights, len(events)))
    return events


class Asked(NamedTuple):
    """The directives in the headers of one request, and everything that a repeat of it must equal.

    Attributes:
        target: of the request.
        key: the value of `Idempotency-Key`, None without it.
        expect: the value of `If-Match`, None without it.
        media_type: the value of `Content-Type`, empty without it.
        body: the whole body.
    """

    target: Target
    key: bytes | None
    expect: bytes | None
    media_type: bytes
    body: bytes

    def directives(self, rights: Rights | None) -> Directives:
        """For a request with one event and one topic if it has `If-Match`. Raises InvalidEvent."""
        expect = None if self.expect is None else _expected(self.expect)
        return Directives(expect=expect, request=self.request(rights, 1))

    def request(self, rights: Rights | None, count: int) -> RequestKey | None:
        """The key of a request that publishes so many events; None without one."""
        if self.key is None:
            return None
        text = key_scope(rights) + check_key(_unquoted(self.key), KEY_HEADER)
        begun = BegunDigest(digested(self.target, self.media_type, self.expect))
        return RequestKey(text, begun.of_body(self.body), count)


def digested(target: Target, media_type: bytes | None, expect: bytes | None = None) -> bytes:
    """Everything that distinguishes requests, up to the body: what begins their digest."""
    pairs = [pair for pair in target.pairs if pair[0] not in CREDENTIAL_NAMES]
    parts = (
        target.path,
        repr(pairs).encode(),
        # Whichever parser has read the head: one leaves blanks around values.
        (media_type or b"").strip(),
        (expect or b"").strip(),
    )
    return b"".join([b"%d:%b" % (len(part), part) for part in parts])


def scoped(events: Sequence[Event], rights: Rights | None) -> Sequence[Event]:
    """Events of a body that is published while it arrives, with keys that name the subject. The
    given ones do not change: they are published again when a batch was refused. Raises
    InvalidEvent."""
    if not is_plain(events):
        events = list(events)
        _check(events, False, None)
        if any(is_delayed(event.directives) for event in events):
            raise InvalidEvent("delay", "needs a request with one event")
        scope = key_scope(rights)
        return [event.directed(_scoped(event.directives, scope)) for event in events]
    return events


def check_streamed(request: Request) -> None:
    """Raises InvalidEvent for a header that concerns a whole body."""
    for header in (KEY_HEADER, EXPECT_HEADER):
        if header.lower().encode() in request.headers:
            raise InvalidEvent(header, "is for a whole body; give the lines members of their own")


def _check(events: Sequence[Event], has_key: bool, expect: bytes | None) -> None:
    if expect is not None and len(events) > 1:
        raise InvalidEvent(EXPECT_HEADER, "is for one event; use the member expect of each line")
    for event in events:
        asked = event.directives
        if asked is None:
            continue
        if is_delayed(asked) and len(events) > 1:
            raise InvalidEvent("delay", "needs a request with one event")
        if is_delayed(asked) and expect is not None:
            raise InvalidEvent(EXPECT_HEADER, "can't be combined with deliver_at or delay")
        if has_key and asked.key is not None:
            raise InvalidEvent("key", f"can't be combined with {KEY_HEADER}")
        if (asked.expect is not None or expect is not None) and len(event.topics) > 1:
            raise InvalidEvent("expect", "needs one topic")
    if expect is not None and len(events[0].topics) > 1:
        raise InvalidEvent(EXPECT_HEADER, "needs one topic")


def _scoped(asked: Directives | None, scope: bytes) -> Directives | None:
    """The same with the subject in front of the key."""
    if asked is None or asked.key is None:
        return asked
    return asked._replace(key=scope + asked.key)


def _add(event: Event, **more: object) -> None:
    event.direct((event.directives or Directives())._replace(**more))  # type: ignore[arg-type]


def key_scope(rights: Rights | None) -> bytes:
    """What stands before the keys of a publisher: its subject, as a digest."""
    return _scope_of("" if rights is None else rights.subject or "")


@lru_cache(maxsize=1024)
def _scope_of(name: str) -> bytes:
    subject = name.encode()
    return hashlib.blake2b(subject, digest_size=SCOPE_BYTES).digest()


def _expected(value: bytes) -> bytes | None:
    if value.strip() == b"*":
        raise InvalidEvent(EXPECT_HEADER, "must be the id of an event, or earliest")
    wanted = directives_of(expect=_unquoted(value))
    assert wanted is not None
    return wanted.expect


def _unquoted(value: bytes) -> str:
    text = value.strip().decode("latin-1")
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
