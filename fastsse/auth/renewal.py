"""A fresh token for an open stream takes the place of the one that opened it."""

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
    """What a stream goes by: its subject's hash as `claim_hash` makes it, and the grants that it
    was opened with."""

    subject_hash: int
    subscribe: tuple[str, ...]


class RenewableStreams(Protocol):
    """The streams of one worker (`hub.streams`)."""

    def find(self, stream_id: bytes) -> int:
        """The handle of a stream, or 0."""

    def held_by(self, handle: int) -> Held | None:
        """What it goes by; None when it bears no token."""

    def renew(self, handle: int, rights: Rights) -> bool:
        """Gives it another; False when it has ended."""


class Renewals:
    """Renews streams wherever they are. Loop thread only.

    Arguments:
        reach: the way to other workers' streams.
        streams: this worker's.
    """

    def __init__(self, reach: StreamLookup, streams: RenewableStreams) -> None:
        self._reach = reach
        self._streams = streams
        reach.teach(_RENEW, self._here)

    def renew(
        self, stream_id: bytes, fresh: Rights, done: Callable[[bool | FastsseError], None]
    ) -> None:
        """Gives `done` True when the stream lives by the fresh token now, False when there is no
        such stream or it bears no token; Forbidden when the token does not fit, or Refused."""

        def reached(answer: bytes | FastsseError | None) -> None:
            if answer is None or isinstance(answer, FastsseError):
                done(False if answer is None else answer)
            else:
                done(True if answer == _RENEWED else Forbidden(answer.decode()))

        self._reach.reach(_RENEW, stream_id, fresh.pack(), reached)

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
    """Raises Forbidden unless `fresh` is of the same subject and covers all that was granted.

    The stream goes on with the grants that it was opened with, so the fresh token must have each
    of them.
    """
    if claim_hash(fresh.subject) != held.subject_hash:
        raise Forbidden("The fresh token is another subject's (sub) than the stream's.")
    if ANY not in fresh.subscribe and not set(held.subscribe) <= set(fresh.subscribe):
        raise Forbidden("The fresh token's mercure.subscribe lacks some of the stream's selectors.")
