"""Keys of TLS records that the sender seals; see `_seal.pyx`."""

from typing import Final, final

PLAIN_BYTES_MAX: Final[int]
RECORDS_MAX: Final[int]
KIND_ALERT: Final[int]
KIND_DATA: Final[int]
CLOSE_NOTIFY: Final[bytes]

class SealError(Exception):
    """This OpenSSL can't seal records, or a key has sealed RECORDS_MAX records."""

def native_bytes_held() -> int:
    """Bytes that this module holds now. O(1)."""

def check() -> None:
    """Seals a record of RFC 8448 and compares it, and opens one of AES-256. Raises SealError."""

def keys_of(secret: bytes) -> tuple[bytes, bytes]:
    """The key and the iv of a traffic secret (RFC 8446 §7.3): 32 bytes are of
    TLS_AES_128_GCM_SHA256, 48 of TLS_AES_256_GCM_SHA384. Raises ValueError for another length."""

def is_record(secret: bytes, record: bytes, number: int) -> bool:
    """Whether a record was sealed with the keys of `secret` under `number`."""

@final
class RecordSealer:
    """Seals records one after the other, from `number` on. For tests and `check`."""

    def __init__(self, secret: bytes, number: int = 0) -> None: ...
    @staticmethod
    def of_keys(key: bytes, iv: bytes, number: int = 0) -> RecordSealer:
        """With a key of 16 or 32 bytes and an iv of 12 instead of a secret. Raises ValueError."""

    @property
    def number(self) -> int:
        """The number of the next record."""

    def seal(self, plain: bytes, kind: int = ...) -> bytes:
        """A record (RFC 8446 §5.2) of at most PLAIN_BYTES_MAX bytes. Raises ValueError; SealError
        once the key has sealed RECORDS_MAX records."""

@final
class Gcm:
    """AES-GCM as records use it, each call with a key of its own. For tests."""

    def seal(self, key: bytes, nonce: bytes, head: bytes, plain: bytes) -> bytes:
        """The sealed bytes and a tag of 16. `key`: 16 or 32 bytes; `nonce`: 12; `head` is only
        authenticated. Raises ValueError; SealError if OpenSSL refuses."""

    def open(self, key: bytes, nonce: bytes, head: bytes, sealed: bytes) -> bytes | None:
        """The plain bytes; None if the tag is wrong, or `sealed` is shorter than a tag. Raises
        ValueError."""

@final
class SealedSocket:
    """The socket of a client of TLS 1.3 whose further records the sender seals, with their keys.
    Owns both descriptors until a sender takes them; wipes the keys when it goes.

    Arguments:
        net_fd: the client's socket.
        secret: as in `keys_of`.
        number: of the next record.
        pair_fd: closed when the sender has changed over; -1: none.
    """

    def __init__(self, net_fd: int, secret: bytes, number: int = 0, pair_fd: int = -1) -> None: ...
