"""Streams opened by a ticket: sets the cookie of the client, and allows one open stream per
ticket."""

from collections.abc import Callable
from typing import Final, NamedTuple

from fastsse._core import REASON_ENDED
from fastsse.auth.tickets import Opened, Tickets
from fastsse.control.stream_lookup import StreamLookup
from fastsse.errors import FastsseError
from fastsse.http.client_address import ClientAddresses, network_of
from fastsse.http.request import Request
from fastsse.hub.streams import Streams
from fastsse.log import AccessLog

__all__ = ["Terms", "TicketStreams"]

_END: Final = b"t"
_HTTPS: Final = b"https://"


class Terms(NamedTuple):
    """Additions to a stream: header lines for its answer, and a callback for its handle."""

    lines: bytes
    opened: Callable[[int], None]


class TicketStreams:
    """Ticket streams of one worker. Loop thread only.

    Arguments:
        tickets: knows the stream of each ticket.
        lookup: finds a stream in any worker.
        streams: the streams of this worker.
        clients: finds client addresses.
        access: logs each stream that a newer one ended.
    """

    def __init__(
        self,
        tickets: Tickets,
        lookup: StreamLookup,
        streams: Streams,
        clients: ClientAddresses,
        access: AccessLog,
    ) -> None:
        self._tickets = tickets
        self._lookup = lookup
        self._streams = streams
        self._clients = clients
        self._access = access
        lookup.teach(_END, self._end)

    def network(self, request: Request) -> str:
        """The address prefix of the client of a request."""
        forwarded = request.headers.get(b"x-forwarded-for")
        return network_of(self._clients.address(request.peer, forwarded))

    def terms(self, opened: Opened, request: Request) -> Terms:
        """The terms for a request whose ticket was accepted. The cookie is `Secure` if the origin
        of the page is https."""
        lines = b""
        if opened.cookie is not None:
            page = request.headers.get(b"origin") or request.headers.get(b"referer", b"")
            secure = b"; Secure" if page.lower().startswith(_HTTPS) else b""
            attributes = b"; HttpOnly; SameSite=Strict"
            lines = b"Set-Cookie: %b%b%b\r\n" % (opened.cookie, attributes, secure)
        network = self.network(request)
        return Terms(lines, lambda handle: self._note(opened, handle, network))

    def _note(self, opened: Opened, handle: int, network: str) -> None:
        """Records the stream of a ticket, and ends its earlier one."""

        def before(stream_id: bytes) -> None:
            self._lookup.reach(_END, stream_id, b"", ended)

        def ended(answer: bytes | FastsseError | None) -> None:
            if isinstance(answer, bytes):
                self._access.replaced(handle, network)

        self._tickets.note_stream(opened, self._streams.id_of(handle), before)

    def _end(self, stream_id: bytes, _: bytes) -> bytes | None:
        handle = self._streams.find(stream_id)
        return b"" if handle and self._streams.close(handle, REASON_ENDED) else None
