"""Opens records of TLS 1.3 with keys that the package `cryptography` derives, which has an OpenSSL
of its own: what our sealer wrote is judged by none of our code."""

from collections.abc import Iterator

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

ALERT, DATA = 21, 23
CLOSE_NOTIFY = (ALERT, b"\x01\x00")


def expand_label(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446 §7.1) without a context."""
    full = b"tls13 " + label
    info = size.to_bytes(2, "big") + bytes([len(full)]) + full + b"\x00"
    algorithm = hashes.SHA384() if len(secret) == 48 else hashes.SHA256()
    return HKDFExpand(algorithm=algorithm, length=size, info=info).derive(secret)


class Opener:
    """Opens the records of one direction in their order."""

    def __init__(self, secret: bytes, number: int = 0) -> None:
        self._cipher = AESGCM(expand_label(secret, b"key", 32 if len(secret) == 48 else 16))
        self._iv = int.from_bytes(expand_label(secret, b"iv", 12), "big")
        self.number = number
        self._rest = b""

    def open(self, record: bytes) -> tuple[int, bytes]:
        """The kind and the bytes of the next record. Raises InvalidTag."""
        assert record[:3] == b"\x17\x03\x03"
        assert int.from_bytes(record[3:5], "big") == len(record) - 5
        nonce = (self._iv ^ self.number).to_bytes(12, "big")
        plain = self._cipher.decrypt(nonce, record[5:], record[:5]).rstrip(b"\x00")
        self.number += 1
        return plain[-1], plain[:-1]

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The records that are whole now."""
        self._rest += data
        while len(self._rest) >= 5:
            size = 5 + int.from_bytes(self._rest[3:5], "big")
            if len(self._rest) < size:
                return
            record, self._rest = self._rest[:size], self._rest[size:]
            yield self.open(record)

    @property
    def is_between(self) -> bool:
        """Whether all bytes so far are whole records."""
        return not self._rest
