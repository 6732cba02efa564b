"""Promises of the sealer of TLS records: its keys and records are those of RFC 8446, each record
has the next number, and no number is used twice."""

import os
import random
from typing import Final

import pytest
from cryptography.exceptions import InvalidTag

from fastsse import _seal
from tests.tls_records import ALERT, DATA, Opener, expand_label

try:
    _seal.check()
except _seal.SealError:
    pytest.skip("OpenSSL 3 is not installed", allow_module_level=True)

#: Records compared with OpenSSL; by hand: FASTSSE_RECORDS=1000000.
RECORDS: Final = int(os.environ.get("FASTSSE_RECORDS", "10000"))
# RFC 8448 §3, of the server.
SECRET: Final = bytes.fromhex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643")
DATA_RECORD: Final = bytes.fromhex(
    "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb50"
    "1a59a8fcc49c4bf2e5f0a21c0047c2abf332540dd032e167c2955d"
)
CLOSE_RECORD: Final = bytes.fromhex("1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9")


def test_keys_are_those_of_rfc_8448() -> None:
    key, iv = _seal.keys_of(SECRET)
    assert key.hex() == "9f02283b6c9c07efc26bb9f2ac92e356"
    assert iv.hex() == "cf782b88dd83549aadf1e984"


def test_records_are_those_of_rfc_8448() -> None:
    sealer = _seal.RecordSealer(SECRET, 1)  # The first one was the session ticket.
    assert sealer.seal(bytes(range(50))) == DATA_RECORD
    assert sealer.seal(_seal.CLOSE_NOTIFY, _seal.KIND_ALERT) == CLOSE_RECORD


@pytest.mark.parametrize("size", [32, 48])
def test_keys_of_any_secret_are_those_of_another_key_schedule(size: int) -> None:
    for _ in range(200):
        secret = os.urandom(size)
        key = expand_label(secret, b"key", 32 if size == 48 else 16)
        assert _seal.keys_of(secret) == (key, expand_label(secret, b"iv", 12))


@pytest.mark.parametrize("secret_bytes", [32, 48])
def test_openssl_opens_every_record_in_its_order(secret_bytes: int) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    chance = random.Random(seed)
    left = RECORDS // 2
    while left:
        secret = chance.randbytes(secret_bytes)
        number = chance.choice([0, 1, 255, 256, 65_535, chance.randrange(1 << 24)])
        sealer, opener = _seal.RecordSealer(secret, number), Opener(secret, number)
        for _ in range(min(left, 500, (1 << 24) - number)):
            left -= 1
            size = chance.choice([0, 1, 15, 16, 17, 150, 1500, chance.randrange(2000)])
            if chance.random() < 0.01:
                size = 16_384 - chance.randrange(2)
            plain = chance.randbytes(size) + b"\x01" * (size == 0)
            kind = chance.choice([ALERT, DATA])
            assert opener.open(sealer.seal(plain, kind)) == (kind, plain), seed
            assert sealer.number == opener.number


@pytest.mark.parametrize("size", range(66))
def test_every_length_around_the_blocks_of_aes(size: int) -> None:
    secret = os.urandom(48)
    plain = b"\xff" * size
    assert Opener(secret).open(_seal.RecordSealer(secret).seal(plain)) == (DATA, plain)


def test_equal_bytes_under_one_key_never_give_equal_records() -> None:
    sealer = _seal.RecordSealer(SECRET)
    assert len({sealer.seal(b"the same") for _ in range(5000)}) == 5000


def test_record_has_only_the_number_that_it_was_sealed_under() -> None:
    record = _seal.RecordSealer(SECRET, 9).seal(b"nine")
    found = [number for number in range(30) if _seal.is_record(SECRET, record, number)]
    assert found == [9]
    for at in range(len(record)):
        changed = bytearray(record)
        changed[at] ^= 1
        assert not _seal.is_record(SECRET, bytes(changed), 9)
        with pytest.raises((InvalidTag, AssertionError)):
            Opener(SECRET, 9).open(bytes(changed))
    assert not _seal.is_record(bytes(32), record, 9)
    for size in range(22):
        assert not _seal.is_record(SECRET, record[:size], 9)


def test_key_seals_no_more_than_its_records() -> None:
    sealer = _seal.RecordSealer(SECRET, _seal.RECORDS_MAX - 1)
    assert Opener(SECRET, _seal.RECORDS_MAX - 1).open(sealer.seal(b"last")) == (DATA, b"last")
    for _ in range(3):
        with pytest.raises(_seal.SealError):
            sealer.seal(b"one more")
    assert sealer.number == _seal.RECORDS_MAX


def test_bad_arguments_are_refused() -> None:
    for size in (0, 16, 31, 33, 47, 49, 64):
        with pytest.raises(ValueError, match="32 or 48"):
            _seal.RecordSealer(bytes(size))
    with pytest.raises(ValueError, match="16384"):
        _seal.RecordSealer(SECRET).seal(bytes(16_385))
    with pytest.raises(OverflowError):
        _seal.RecordSealer(SECRET, -1)
    with pytest.raises(ValueError, match="number"):
        _seal.RecordSealer(SECRET, _seal.RECORDS_MAX + 1)
    for key, iv in ((b"k" * 24, bytes(12)), (bytes(16), bytes(11)), (b"", bytes(12))):
        with pytest.raises(ValueError, match=r"(key|iv) has"):
            _seal.RecordSealer.of_keys(key, iv)
        with pytest.raises(ValueError, match=r"(key|iv) has"):
            _seal.Gcm().seal(key, iv, b"", b"")


def test_keys_leave_no_memory_behind() -> None:
    before = _seal.native_bytes_held()
    sealers = [_seal.RecordSealer(SECRET) for _ in range(3)]
    assert _seal.native_bytes_held() > before
    sealers.clear()
    assert _seal.native_bytes_held() == before
