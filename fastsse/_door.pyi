"""The native side of TLS; see `_door.pyx`."""

from collections.abc import Sequence
from typing import Final, final

from fastsse._seal import SealedSocket

TICKET_BYTES: Final[int]
KIND_ACCEPTED: Final[int]
KIND_PLAIN: Final[int]
KIND_FAILED: Final[int]
KIND_EXHAUSTED: Final[int]

#: `released`, then why a connection stays with OpenSSL.
FITS: Final[tuple[str, ...]]

#: Kind, descriptor or -1, source, (host, port) of the client, OpenSSL's reason, number of the
#: connection for `Door.release`; 0: it can't be released.
_Notice = tuple[int, int, int, tuple[str, int] | None, str, int]

class TlsError(Exception):
    """A certificate can't be used. `part` is `library`, `certificate` or `key`, `detail` OpenSSL's
    reason, `index` the place of the certificate."""

    part: str
    detail: str
    index: int

    def __init__(self, part: str, detail: str, index: int = 0) -> None: ...

def native_bytes_held() -> int:
    """Bytes that all doors of this process hold now, without OpenSSL's own. O(1)."""

def library_version() -> str:
    """The version of OpenSSL. Raises TlsError if it is not installed."""

@final
class Certificates:
    """Certificates with their keys, loaded and checked. Reads files.

    Arguments:
        pairs: paths of each certificate (with its chain) and its key; at least one.
        only_1_3: refuse TLS 1.2.

    Attributes:
        expires_s: when each ends, seconds since 1970; 0 if unknown.

    Raises TlsError.
    """

    expires_s: Final[tuple[int, ...]]

    def __init__(self, pairs: Sequence[tuple[bytes, bytes]], *, only_1_3: bool = False) -> None: ...
    def has_name(self, index: int, name: bytes) -> bool:
        """Whether a certificate is for this host name. Not after a door has taken them."""

@final
class Door:
    """A thread that accepts TLS connections and copies between their clients and the server.

    Arguments:
        certificates: the door owns them from now on.
        ticket_keys: seals session tickets; TICKET_BYTES.
        handshakes_max: connections without a request at once.
        handshake_timeout_ms: from an accepted connection to the first byte of its request.
        send_buffer_bytes: of the server's end of each pair; the kernel doubles it.
        releases: whether connections may be released.
        net_limit, net_refuse_every, pair_limit: for tests: bytes that a client's socket takes or
            gives in a call, every how many calls it refuses, bytes that a pair takes in a call.

    The methods are for the loop thread. `stop` waits for the thread to end, which takes no longer
    than a handshake step.
    """

    def __init__(
        self,
        certificates: Certificates,
        ticket_keys: bytes,
        *,
        handshakes_max: int = 256,
        handshake_timeout_ms: int = 10_000,
        send_buffer_bytes: int = 16_384,
        releases: bool = False,
        net_limit: int = 0,
        net_refuse_every: int = 0,
        pair_limit: int = 0,
    ) -> None: ...
    @property
    def notice_fd(self) -> int:
        """Readable when `take` has something."""

    def start(self) -> None:
        """Starts the thread. Once."""

    def stop(self) -> None:
        """Ends the thread and closes everything. Idempotent."""

    def certify(self, certificates: Certificates, ticket_keys: bytes) -> None:
        """New handshakes use these; open connections keep theirs."""

    def seal_tickets(self, ticket_keys: bytes) -> None:
        """New tickets are sealed with these; older ones lead to a full handshake."""

    def listen(self, source: int, fds: Sequence[int]) -> None:
        """Accepts for `source` only from copies of these listening sockets from now on."""

    def pause(self, duration_ms: int) -> None:
        """Accepts nothing for a time; new connections wait in the kernel."""

    def release(self, number: int, handle: int) -> None:
        """Asks for the client's socket and keys of a connection, of which the server reads and
        writes nothing until the answer. `take_released` has the answer."""

    def take_released(self) -> list[tuple[int, SealedSocket | None, str]]:
        """The answers that the last `take` found: the handle, what was released or None, and a word
        of FITS. Without it OpenSSL goes on with the connection, as before."""

    def take(self) -> list[_Notice]:
        """What happened, the oldest first. The caller owns the descriptors: of KIND_ACCEPTED the
        server's end of a pair, of KIND_PLAIN a client's socket that began without TLS."""

    def counters(self) -> dict[str, int]:
        """Its counters; also after `stop`."""
