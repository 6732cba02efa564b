"""Which publishes the native intake may take, and the parts that it needs to publish them.

Such a publish has its topics in the query, and the results of all checks are known: the target is
valid, its topics are not reserved, their rules allow the type, and there is no warning.
"""

from collections.abc import Callable, Sequence
from typing import Final

from fastsse._intake import KnownPublisher, KnownTarget
from fastsse.api.access import CREDENTIAL_NAMES, Access
from fastsse.api.publish_query import event_of_query
from fastsse.api.rate_limits import RequestLimits
from fastsse.api.request_directives import Asked, digested, key_scope
from fastsse.api.warnings import warnings_on
from fastsse.auth.rights import Rights
from fastsse.directives import Directives
from fastsse.entries import EventBatch, KeyedBatch
from fastsse.errors import FastsseError, InvalidEvent
from fastsse.events import Event
from fastsse.http.request import Target
from fastsse.hub import Hub, Published, Separate
from fastsse.reserved import check_not_reserved

__all__ = ["PATH", "PublishIntake"]

PATH: Final = "/events"
Outcome = Published | FastsseError | list[Separate]


class PublishIntake:
    """The publishes of our API, for the intake of a listener (`http.intake.Publishes`).

    Arguments:
        hub: orders the events.
        access: decides who may publish.
        request_limits: limits the publishes of a client.
        max_event: the most bytes of data; 0: no limit.
    """

    route = PATH

    def __init__(
        self, hub: Hub, access: Access, request_limits: RequestLimits, max_event: int
    ) -> None:
        self._hub = hub
        self._access = access
        self._request_limits = request_limits
        self.max_data_bytes = max_event or 2**31

    @property
    def publish(
        self,
    ) -> Callable[[Sequence[Event], Callable[[Outcome], None]], None]:
        """Publishes a batch of separate publishes."""
        return self._hub.publish_separately

    @property
    def publish_now(self) -> Callable[[EventBatch | KeyedBatch], Sequence[int] | None]:
        """Publishes a batch that is committed within the call, else does nothing."""
        return self._hub.publish_now

    def target(self, target: Target) -> KnownTarget | None:
        """The event that a target describes. Raises InvalidEvent, Forbidden or Problem."""
        if target.path != PATH.encode() or any(
            name in CREDENTIAL_NAMES for name, _ in target.pairs
        ):
            return None
        event = event_of_query(target)
        if event is None or event.id is not None or event.directives or warnings_on(event.event):
            return None
        check_not_reserved(event.topics)
        return KnownTarget(target, event) if self._hub.allows(event) else None

    def publisher(self, header: bytes | None) -> KnownPublisher | None:
        """The publisher of an `Authorization` header, if it was accepted before."""
        known = self._access.known_publisher(header)
        return (
            None
            if known is None
            else KnownPublisher(known.rights, known.still, key_scope(known.rights))
        )

    digested = staticmethod(digested)

    def directives(
        self,
        target: KnownTarget,
        rights: Rights | None,
        key: bytes | None,
        expect: bytes | None,
        media_type: bytes | None,
        body: bytes,
    ) -> Directives | None:
        """The directives in the headers of one publish; None if they need a full check."""
        if expect is not None and len(target.topics) > 1:
            return None
        asked = Asked(target.target, key, expect, media_type or b"", body)
        try:
            return asked.directives(rights)
        except InvalidEvent:
            return None  # The connection reads the request again and reports the error.

    def counts(self, host: str, rights: Rights | None, forwarded: bytes | None) -> bool:
        """Counts a publish for its client; False, without counting, if that is over a limit."""
        return self._request_limits.takes_publish(host, rights, forwarded)
