"""TLS of the listeners of one worker: certificates, session tickets, and the door thread, which
gives the loop plain connections.

OpenSSL does all of TLS; with `tls_records = native` the sender seals the records of streams.
`_door.pyx` and `_seal.pyx` are what is ours.
"""

import asyncio
import hmac
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from fastsse._door import (
    FITS,
    KIND_ACCEPTED,
    KIND_EXHAUSTED,
    KIND_PLAIN,
    TICKET_BYTES,
    Certificates,
    Door,
    TlsError,
)
from fastsse._seal import SealedSocket, SealError
from fastsse._seal import check as check_sealing
from fastsse.config import ConfigError, OptionProblem, TlsOptions
from fastsse.http.accept import DoorSocket
from fastsse.http.client_address import name_of
from fastsse.http.listeners import ACCEPT_PAUSE_S, Listener
from fastsse.log import get_logger

__all__ = ["SECRET_BYTES", "TlsDoor", "TlsListener", "check_records", "load_certificates"]

log = get_logger("tls")
#: Length of the secret that ticket keys are made from.
SECRET_BYTES: Final = 32
_DAY_S: Final = 86_400
# A certificate that ends sooner than this is logged once a day.
_EXPIRES_SOON_S: Final = 14 * _DAY_S
# Counters of handshakes, and those among them that are worth a line.
_RESULTS: Final = ("full", "resumed", "failed", "timed_out", "evicted", "left", "plain")
_FAILURES: Final = ("failed", "timed_out", "evicted")
_UNPROVEN: Final = "records_unproven"

_Welcome = Callable[[socket.socket, object], None]


def load_certificates(options: TlsOptions) -> Certificates:
    """The certificates in the options, checked with their keys. Reads files; expired ones are
    loaded and logged. Raises ConfigError."""
    certificates = options.tls_cert
    keys = options.tls_key or certificates
    for name, paths in (("tls_cert", certificates), ("tls_key", keys)):
        for path in paths:
            _check_readable(name if options.tls_key else "tls_cert", path)
    pairs = [
        (certificate.encode(), key.encode())
        for certificate, key in zip(certificates, keys, strict=True)
    ]
    try:
        return Certificates(pairs, only_1_3=options.tls_min == "1.3")
    except TlsError as error:
        if error.part == "library":
            raise ConfigError([f"{error.detail}."]) from None
        is_key = error.part == "key" and bool(options.tls_key)
        name, place = ("tls_key", keys) if is_key else ("tls_cert", certificates)
        allowed = _allowed(error, certificates[error.index], has_key_file=bool(options.tls_key))
        raise ConfigError([_problem(name, place[error.index], allowed)]) from None


def check_records(options: TlsOptions) -> bool:
    """Whether streams may seal their own records. Raises ConfigError if OpenSSL can't do that."""
    if options.tls_records != "native" or not options.tls_cert:
        return False
    try:
        check_sealing()
    except SealError as error:
        raise ConfigError([_problem("tls_records", "native", f"openssl: {error}")]) from None
    return True


def _check_readable(name: str, path: str) -> None:
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        allowed = f"a PEM file that the server can read ({error.strerror})"
        raise ConfigError([_problem(name, path, allowed)]) from None


def _problem(name: str, path: str, allowed: str) -> OptionProblem:
    return OptionProblem(name, path, "an argument", allowed)


def _allowed(error: TlsError, certificate: str, *, has_key_file: bool) -> str:
    """What a file must be that OpenSSL refused."""
    reason = f" ({error.detail})" if error.detail else ""
    if error.part == "certificate":
        return f"a PEM file with a certificate{reason}"
    if "mismatch" in error.detail:
        return f"the key of the certificate in {certificate}; it belongs to another one"
    if not has_key_file:
        return "a PEM file with the key too, without a passphrase; or name its file with tls_key"
    return f"a PEM file with a key without a passphrase{reason}"


def ticket_keys(secret: bytes, now_s: float) -> bytes:
    """The keys of session tickets on one day, the same in all workers with this secret."""
    day = int(now_s // _DAY_S).to_bytes(8, "big")
    parts = [hmac.digest(secret, b"fastsse tickets %d " % n + day, "sha256") for n in range(3)]
    return b"".join(parts)[:TICKET_BYTES]


class TlsListener(Listener):
    """A listener whose sockets the door accepts from. Loop thread."""

    scheme = "https"

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        door: "TlsDoor",
        welcome: _Welcome,
        welcome_plain: _Welcome,
        *,
        is_owner: bool = True,
    ) -> None:
        self._door = door
        self._source = door.add(welcome, welcome_plain)
        super().__init__(sockets, welcome, is_owner=is_owner)

    def watch(self, sockets: Sequence[socket.socket]) -> None:
        """As `Listener.watch`."""
        self._watched = tuple(sockets)
        self._door.listen(self._source, sockets)

    def pause(self, duration_s: float, reason: str) -> None:
        """As `Listener.pause`, for all listeners of the door."""
        self._door.pause(duration_s, reason)


class RecordOwner(Protocol):
    """Takes over the records of streams, or leaves them with the door. False: it has ended."""

    def seal(self, handle: int, sealed: SealedSocket) -> bool: ...
    def go_on_plain(self, handle: int) -> bool: ...


class TlsDoor:
    """The door thread of one worker. Loop thread only.

    Arguments:
        options: the TLS options.
        secret: makes the keys of session tickets; the same for all workers of a service.
        streams: may take over records, with `tls_records = native`.

    Raises ConfigError. The thread starts at once, so call it after a fork.
    """

    def __init__(self, options: TlsOptions, secret: bytes, streams: RecordOwner) -> None:
        certificates = load_certificates(options)
        self._options = options
        self._streams = streams
        self.releases: Final = check_records(options)
        self._secret = secret
        self._day = int(time.time() // _DAY_S)
        self._sources: list[tuple[_Welcome, _Welcome]] = []
        self._expires = dict(zip(options.tls_cert, certificates.expires_s, strict=True))
        self._reported: dict[str, int] = {}
        self._last_failure = ("", "")
        self._paused_until_s = 0.0
        self._door: Door | None = Door(
            certificates,
            ticket_keys(secret, time.time()),
            handshakes_max=options.tls_handshakes,
            handshake_timeout_ms=round(options.tls_handshake_time * 1000),
            releases=self.releases,
        )
        self._loop = asyncio.get_running_loop()
        self._door.start()
        self._loop.add_reader(self._door.notice_fd, self._take)
        self._counters = self._door.counters()
        self._log_expiry()

    def add(self, welcome: _Welcome, welcome_plain: _Welcome) -> int:
        """Adds a source of connections; returns its number."""
        self._sources.append((welcome, welcome_plain))
        return len(self._sources) - 1

    def listen(self, source: int, sockets: Sequence[socket.socket]) -> None:
        """Accepts for a source only from these sockets from now on."""
        if self._door is not None:
            self._door.listen(source, [sock.fileno() for sock in sockets])

    def pause(self, duration_s: float, reason: str) -> None:
        """Stops accepting for `duration_s` seconds; new connections wait in the kernel."""
        now_s = self._loop.time()
        if self._door is not None and now_s >= self._paused_until_s:
            log.warning("Accepting is paused.", reason=reason, for_s=duration_s)
            self._paused_until_s = now_s + duration_s
            self._door.pause(round(duration_s * 1000))

    def release(self, number: int, handle: int) -> None:
        """Asks for the keys of a stream's connection. The answer comes with a later notice."""
        if self._door is None:
            self._streams.go_on_plain(handle)
        else:
            self._door.release(number, handle)

    def apply(self, options: TlsOptions, certificates: Certificates) -> None:
        """New handshakes use these certificates; open connections keep theirs."""
        self._options = options
        self._expires = dict(zip(options.tls_cert, certificates.expires_s, strict=True))
        if self._door is not None:
            self._door.certify(certificates, ticket_keys(self._secret, time.time()))
        self._log_expiry()

    def tick(self) -> None:
        """Changes ticket keys at the beginning of a day and logs failures. Call it once a
        second."""
        day = int(time.time() // _DAY_S)
        if day != self._day and self._door is not None:
            self._day = day
            self._door.seal_tickets(ticket_keys(self._secret, time.time()))
            self._log_expiry()
        self._log_failures()

    @property
    def is_busy(self) -> bool:
        """Whether bytes of ended streams or answers are still on their way to clients."""
        if self._door is None:
            return False
        counters = self._door.counters()
        return bool(counters["open"] or counters["unclaimed"])

    def counters(self) -> dict[str, int]:
        """The counters of this part, under the names of the metrics."""
        counters = self._counters if self._door is None else self._door.counters()
        results = {f"tls_handshakes_{name}": counters[name] for name in _RESULTS}
        known = [expires_s for expires_s in self._expires.values() if expires_s]
        return {
            **results,
            **{f"tls_records_{name}": counters[f"records_{name}"] for name in FITS},
            "tls_open": counters["open"],
            "tls_under_way": counters["under_way"],
            **({"tls_expires_s": min(known)} if known else {}),
        }

    def close(self) -> None:
        """Ends the thread and all its connections. Idempotent."""
        door, self._door = self._door, None
        if door is not None:
            self._loop.remove_reader(door.notice_fd)
            self._counters = door.counters()
            door.stop()

    def _take(self) -> None:
        assert self._door is not None
        notices = self._door.take()
        # A stream whose keys are refused for it has ended; what was released is closed then.
        for handle, sealed, _ in self._door.take_released():
            if sealed is None:
                self._streams.go_on_plain(handle)
            else:
                self._streams.seal(handle, sealed)
        for kind, fd, source, address, reason, number in notices:
            if kind in (KIND_ACCEPTED, KIND_PLAIN):
                welcome, welcome_plain = self._sources[source]
                sock = DoorSocket(fileno=fd)
                sock.number = number
                (welcome if kind == KIND_ACCEPTED else welcome_plain)(sock, address)
            elif kind == KIND_EXHAUSTED:
                log.warning(
                    "Accepting is paused.",
                    reason="All file descriptors are in use.",
                    for_s=ACCEPT_PAUSE_S,
                )
            else:
                self._last_failure = (name_of(address), reason or "too slow")

    def _log_failures(self) -> None:
        """One line a second at most, with one of the failures as an example."""
        if self._door is None:
            return
        counters = self._door.counters()
        unproven = counters[_UNPROVEN] - self._reported.get(_UNPROVEN, 0)
        if unproven:
            log.warning("Keys did not open OpenSSL's newest record; it goes on.", streams=unproven)
            self._reported = {**self._reported, _UNPROVEN: counters[_UNPROVEN]}
        new = {name: counters[name] - self._reported.get(name, 0) for name in _FAILURES}
        if not any(new.values()):
            return
        self._reported = counters
        client, reason = self._last_failure
        log.info(
            "TLS handshakes failed.",
            client=client,
            reason=reason,
            **{name: count for name, count in new.items() if count},
        )

    def _log_expiry(self) -> None:
        now_s = time.time()
        for path, expires_s in self._expires.items():
            left_s = expires_s - now_s
            if not expires_s or left_s > _EXPIRES_SOON_S:
                continue
            if left_s <= 0:
                log.error("A certificate has expired; clients refuse it.", certificate=path)
            else:
                log.warning(
                    "A certificate expires soon.",
                    certificate=path,
                    days=round(left_s / _DAY_S, 1),
                )
