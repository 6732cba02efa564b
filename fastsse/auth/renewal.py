"""Renewal: a new token replaces the token of an open stream."""

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from fastsse.auth.rights import Rights, claim_hash
from fastsse.control.stream_lookup import StreamLookup
from fastsse.errors import FastsseError, Forbidden
from fastsse.subscriptions import ANY

__all__ = ["Held", "Renewals", "check_renewal"]

_RENEW: Final = b"r"
_RENEWED: Final = b""


class Held(NamedTuple):
    """The token data of a stream: the hash of its subject (`claim_hash`), and the grants that it
    was opened with."""

    subject_hash: int
    subscribe: tuple[str, ...]


class RenewableStreams(Protocol):
    """The streams of one worker (`hub.streams`)."""

    def find(self, stream_id: bytes) -> int:
        """The handle of a stream, or 0."""

    def held_by(self, handle: int) -> Held | None:
        """Its token data; None if it was opened without a token."""

    def renew(self, handle: int, rights: Rights) -> bool:
        """Replaces the token; False if the stream has ended."""


class Renewals:
    """Renews streams in any worker. Loop thread only.

    Arguments:
        lookup: finds streams of other workers.
        streams: the streams of this worker.
    """

    def __init__(self, lookup: StreamLookup, streams: RenewableStreams) -> None:
        self._lookup = lookup
        self._streams = streams
        lookup.teach(_RENEW, self._here)

    def renew(
        self, stream_id: bytes, fresh: Rights, done: Callable[[bool | FastsseError], None]
    ) -> None:
        """Calls `done` with True after the stream uses the new token; False if there is no such
        stream or it has no token; Forbidden if the token does not fit; or Refused."""

        def reached(answer: bytes | FastsseError | None) -> None:
            if answer is None or isinstance(answer, FastsseError):
                done(False if answer is None else answer)
            else:
                done(True if answer == _RENEWED else Forbidden(answer.decode()))

        self._lookup.reach(_RENEW, stream_id, fresh.pack(), reached)

    def _here(self, stream_id: bytes, packed: bytes) -> bytes | None:
        handle = self._streams.find(stream_id)
        held = self._streams.held_by(handle) if handle else None
        if held is None:
            return None
        fresh = Rights.unpack(packed)
        try:
            check_renewal(held, fresh)
        except Forbidden as error:
            return error.detail.encode()
        return _RENEWED if self._streams.renew(handle, fresh) else None


def check_renewal(held: Held, fresh: Rights) -> None:
    """Raises Forbidden unless `fresh` has the same subject and covers all grants of the stream.

    The stream keeps the grants that it was opened with, so the new token must have each of them.
    """
    if claim_hash(fresh.subject) != held.subject_hash:
        raise Forbidden("The new token has another subject (sub) than the stream.")
    if ANY not in fresh.subscribe and not set(held.subscribe) <= set(fresh.subscribe):
        raise Forbidden(
            "The new token's mercure.subscribe must cover every selector of the stream."
        )
