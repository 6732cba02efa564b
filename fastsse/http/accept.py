"""The first read of an accepted socket.

Most clients are subscribers whose whole request has arrived with the connection. Such a socket is
handed to the sender as it is. No transport is made, and nothing is registered with the loop and
removed again. This more than halves the cost of a new stream.
Every other socket becomes a `Connection`, which reads the same bytes again and answers.
"""

import asyncio
import socket
from typing import Final

from fastsse.auth.rights import Rights
from fastsse.config import HttpOptions
from fastsse.errors import FastsseError, StreamRefused
from fastsse.http.body import BLANK_LINE
from fastsse.http.client_address import host_of, name_of
from fastsse.http.connection import Connection
from fastsse.http.listener_context import ListenerContext
from fastsse.http.parser import RequestParser
from fastsse.http.problems import Problem
from fastsse.http.proxy_protocol import read_proxy_header
from fastsse.http.request import Request
from fastsse.http.responses import Response
from fastsse.http.router import StreamRequest
from fastsse.subscriptions import Subscription

__all__ = ["Acceptor", "DoorSocket"]

# Requests of browsers are shorter. A longer one is read by its connection.
FIRST_READ_BYTES: Final = 4 * 1024
CLOSE_LINE: Final = b"Connection: close\r\n\r\n"


class DoorSocket(socket.socket):
    """The server's end of a pair, whose other end the TLS door has.

    Attributes:
        number: the door's number of the connection; 0 if it never lets OpenSSL go.
    """

    number = 0


class Acceptor:
    """Receives the accepted sockets of one listener context. Loop thread only."""

    def __init__(self, context: ListenerContext) -> None:
        self.context = context
        self._parser = RequestParser(context.limits, context.targets, context.hosts)
        self._connecting: set[asyncio.Task[None]] = set()

    def welcome(self, sock: socket.socket, address: object) -> None:
        """Takes an accepted socket."""
        try:
            data = sock.recv(FIRST_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._connect(sock, b"", address)
            return
        except OSError:
            sock.close()
            return
        if not data:
            sock.close()
            return
        host = host_of(address)
        if self.context.clients.expects_header(host):
            self._welcome_announced(sock, data, host)
        elif not (data[:4] == b"GET " and self._stream(sock, data, host, name_of(address))):
            self._connect(sock, data, address)

    def apply(self, options: HttpOptions) -> None:
        """Applies new limits to later sockets."""
        self.context.apply(options)
        self._renew_parser()

    def close(self) -> None:
        """Closes the sockets that have no transport yet."""
        self._parser.close()
        for task in self._connecting:
            task.cancel()

    async def settled(self) -> None:
        """Returns when every accepted socket has a transport or is closed."""
        if self._connecting:
            await asyncio.wait(self._connecting)

    def _welcome_announced(self, sock: socket.socket, data: bytes, host: str) -> None:
        """Takes a socket from a proxy that sends a PROXY protocol header first."""
        try:
            announced = read_proxy_header(data)
        except Problem:
            announced = None  # The connection reads the header again and answers.
        if announced is None:
            self._connect(sock, data, None)
            return
        host, data = announced.host or host, data[announced.size :]
        if not (data[:4] == b"GET " and self._stream(sock, data, host, host)):
            self._make(sock, data, host, "")

    def _stream(self, sock: socket.socket, data: bytes, host: str, name: str) -> bool:
        """Hands the socket over if `data` is exactly one subscription request. Otherwise returns
        False and changes nothing."""
        if data.find(BLANK_LINE) != len(data) - len(BLANK_LINE):
            return False
        context = self.context
        wanted = _StreamProbe()
        self._parser.peer = host
        try:
            request, _ = self._parser.read_head(data)
            if request is None or not self._parser.persists or self._parser.expect_body(request):
                self._renew_parser()
                return False
            route = context.routes.find(request)
            if not route.streams:
                return False
            route.handle(request, wanted)
        except FastsseError:
            self._renew_parser()
            return False
        subscription = wanted.taken()
        if subscription is None:
            return False
        stream_request = context.stream_request(
            subscription, wanted.rights, request, name, _number_of(sock)
        )
        self._take(sock, stream_request, request)
        return True

    def _take(self, sock: socket.socket, stream_request: StreamRequest, request: Request) -> None:
        context = self.context
        try:
            context.streams.take(sock, stream_request)
            context.requests.opened(request)
        except StreamRefused as why:
            head, body, _ = context.streams.turn_away(
                stream_request.subscription, why, chunked=stream_request.chunked
            )
            context.requests.turned_away(request, why, head, stream_request.client)
            context.requests.answered(request, head)
            _send_and_close(sock, b"".join((head, stream_request.lines, CLOSE_LINE, body)))
        except Exception:
            context.failed(request)
            sock.close()

    def _renew_parser(self) -> None:
        self._parser.close()
        context = self.context
        self._parser = RequestParser(context.limits, context.targets, context.hosts)

    def _connect(self, sock: socket.socket, early: bytes, address: object) -> None:
        """Makes a transport and a connection for the socket, from which `early` was read. The
        transport knows the client's address, unless the socket is the end of a pair."""
        if self.context.is_paired:
            self._make(sock, early, host_of(address), name_of(address))
        else:
            self._make(sock, early, "", "")

    def _make(self, sock: socket.socket, early: bytes, peer: str, name: str) -> None:
        """`peer` and `name` are those of `Connection`."""
        sock.setblocking(False)
        task = self.context.loop.create_task(self._make_transport(sock, early, peer, name))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _make_transport(
        self, sock: socket.socket, early: bytes, peer: str, name: str
    ) -> None:
        context = self.context
        try:
            await context.loop.connect_accepted_socket(
                lambda: Connection(context, early, peer, name, _number_of(sock)), sock
            )
        except (OSError, asyncio.CancelledError):
            sock.close()


class _StreamProbe:
    """An exchange (`router.Exchange`) that records which stream a request asks for. It ignores any
    other answer: the route is called again for the `Connection`."""

    __slots__ = ("rights", "subscription")

    may_wait: Final = False

    def __init__(self) -> None:
        self.subscription: Subscription | None = None
        self.rights: Rights | None = None

    def stream(self, subscription: Subscription, rights: Rights | None = None) -> None:
        self.subscription = subscription
        self.rights = rights

    def taken(self) -> Subscription | None:
        """The subscription, which is forgotten: what it was made of may refer to this exchange, and
        would be garbage in a circle."""
        subscription, self.subscription = self.subscription, None
        return subscription

    def turn_away(self, subscription: Subscription, why: StreamRefused) -> None:
        pass

    def respond(self, response: Response) -> None:
        pass

    def fail(self, error: FastsseError) -> None:
        pass

    def peer(self) -> str:
        return ""


def _number_of(sock: socket.socket) -> int:
    return sock.number if isinstance(sock, DoorSocket) else 0


def _send_and_close(sock: socket.socket, answer: bytes) -> None:
    """Sends `answer` and closes. The socket's send buffer is empty, so it takes the whole
    answer."""
    try:
        sock.send(answer, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except OSError:
        pass  # The client is gone.
    finally:
        sock.close()
