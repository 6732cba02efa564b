# The keys of TLS records that the sender seals: the check that OpenSSL can, and the object in which
# they go from the door to the sender. `native/record_seal.pxd` seals.

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastsse.native.aead cimport GcmContext, crypto_load, gcm, gcm_free, gcm_new
from fastsse.native.memory cimport native_bytes
from fastsse.native.os cimport close, relaxed_load
from fastsse.native.record_seal cimport (
    ALERT, APPLICATION_DATA, PLAIN_BYTES_MAX as NATIVE_PLAIN_BYTES_MAX,
    RECORDS_MAX as NATIVE_RECORDS_MAX, TAG_BYTES, Seal, Sealer, is_record_of, seal_begin, seal_record,
    seal_wipe, sealer_free, sealer_new, sealer_room)

PLAIN_BYTES_MAX = NATIVE_PLAIN_BYTES_MAX
RECORDS_MAX = NATIVE_RECORDS_MAX
KIND_ALERT, KIND_DATA = ALERT, APPLICATION_DATA
CLOSE_NOTIFY = b"\x01\x00"

# RFC 8448 §3: server_application_traffic_secret_0, and the server's last record.
_KNOWN_SECRET = bytes.fromhex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643")
_KNOWN_RECORD = bytes.fromhex("1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9")
_KNOWN_NUMBER = 2


class SealError(Exception):
    pass


def native_bytes_held():
    return relaxed_load(&native_bytes)


cdef int load_library() except -1:
    cdef const char* missing = crypto_load()
    if missing is not NULL:
        raise SealError(f"OpenSSL 3 is needed, and {missing.decode()} was not found")
    return 0


def check():
    load_library()
    sealer = RecordSealer(_KNOWN_SECRET, _KNOWN_NUMBER)
    if sealer.seal(CLOSE_NOTIFY, ALERT) != _KNOWN_RECORD:
        raise SealError("OpenSSL seals a record of RFC 8448 in another way")
    secret = bytes(range(48))
    record = RecordSealer(secret, 7).seal(b"check", APPLICATION_DATA)
    if not is_record(secret, record, 7) or is_record(secret, record, 8):
        raise SealError("OpenSSL does not open a record that it has sealed")


cdef int begin(Seal* seal, bytes secret, uint32_t number) except -1:
    load_library()
    if PyBytes_GET_SIZE(secret) not in (32, 48):
        raise ValueError("a secret has 32 or 48 bytes")
    if number > NATIVE_RECORDS_MAX:
        raise ValueError(f"a number is at most {NATIVE_RECORDS_MAX}")
    if not seal_begin(
            seal, <const unsigned char*>PyBytes_AS_STRING(secret),
            <uint32_t>PyBytes_GET_SIZE(secret), number):
        raise SealError("OpenSSL refuses HMAC")
    return 0


def keys_of(bytes secret not None):
    cdef Seal seal
    begin(&seal, secret, 0)
    return (PyBytes_FromStringAndSize(<char*>seal.key, 32 if seal.is_256 else 16),
            PyBytes_FromStringAndSize(<char*>seal.iv, 12))


def is_record(bytes secret not None, bytes record not None, uint64_t number):
    cdef Seal seal
    begin(&seal, secret, 0)
    return is_record_of(
        &seal, <const unsigned char*>PyBytes_AS_STRING(record),
        <uint32_t>PyBytes_GET_SIZE(record), number)


@cython.final
cdef class RecordSealer:
    cdef Seal keys
    cdef Sealer* sealer

    def __cinit__(self, bytes secret not None, uint32_t number=0):
        begin(&self.keys, secret, number)
        self.sealer = sealer_new()
        if self.sealer is NULL:
            raise SealError("OpenSSL has no AES-GCM")

    def __dealloc__(self):
        if self.sealer is not NULL:
            seal_wipe(&self.keys)
        sealer_free(self.sealer)

    @staticmethod
    def of_keys(bytes key not None, bytes iv not None, uint32_t number=0):
        cdef RecordSealer sealer
        check_keys(key, iv)
        sealer = RecordSealer(bytes(32 if PyBytes_GET_SIZE(key) == 16 else 48), number)
        memcpy(sealer.keys.key, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        memcpy(sealer.keys.iv, PyBytes_AS_STRING(iv), PyBytes_GET_SIZE(iv))
        return sealer

    @property
    def number(self):
        return self.keys.number

    def seal(self, bytes plain not None, uint8_t kind=APPLICATION_DATA):
        cdef uint32_t size
        if PyBytes_GET_SIZE(plain) > NATIVE_PLAIN_BYTES_MAX:
            raise ValueError(f"a record has at most {NATIVE_PLAIN_BYTES_MAX} bytes")
        memcpy(sealer_room(self.sealer), PyBytes_AS_STRING(plain), PyBytes_GET_SIZE(plain))
        size = seal_record(self.sealer, &self.keys, <uint32_t>PyBytes_GET_SIZE(plain), kind)
        if size == 0:
            raise SealError("the key has sealed all its records")
        return PyBytes_FromStringAndSize(<char*>self.sealer.record, size)


cdef int check_keys(bytes key, bytes iv) except -1:
    if PyBytes_GET_SIZE(key) not in (16, 32):
        raise ValueError("a key has 16 or 32 bytes")
    if PyBytes_GET_SIZE(iv) != 12:
        raise ValueError("an iv has 12 bytes")
    return 0


@cython.final
cdef class Gcm:
    cdef Sealer* sealer

    def __cinit__(self):
        load_library()
        self.sealer = sealer_new()
        if self.sealer is NULL:
            raise SealError("OpenSSL has no AES-GCM")

    def __dealloc__(self):
        sealer_free(self.sealer)

    def seal(self, bytes key not None, bytes nonce not None, bytes head not None, bytes plain not None):
        cdef bint is_256 = PyBytes_GET_SIZE(key) == 32
        cdef Py_ssize_t size = PyBytes_GET_SIZE(plain)
        cdef bytes sealed = PyBytes_FromStringAndSize(NULL, size + TAG_BYTES)
        cdef unsigned char* data = <unsigned char*>PyBytes_AS_STRING(sealed)
        check_keys(key, nonce)
        memcpy(data, PyBytes_AS_STRING(plain), size)
        if not gcm(self.sealer.long_keys if is_256 else self.sealer.short_keys, True,
                   <const unsigned char*>PyBytes_AS_STRING(key),
                   <const unsigned char*>PyBytes_AS_STRING(nonce),
                   <const unsigned char*>PyBytes_AS_STRING(head), <int>PyBytes_GET_SIZE(head),
                   data, <int>size, data + size):
            raise SealError("OpenSSL refuses")
        return sealed

    def open(self, bytes key not None, bytes nonce not None, bytes head not None, bytes sealed not None):
        cdef Py_ssize_t size = PyBytes_GET_SIZE(sealed) - TAG_BYTES
        cdef bytes plain
        cdef unsigned char* data
        cdef GcmContext* context
        cdef bint is_whole
        check_keys(key, nonce)
        if size < 0:
            return None
        plain = PyBytes_FromStringAndSize(NULL, size + TAG_BYTES)
        data = <unsigned char*>PyBytes_AS_STRING(plain)
        memcpy(data, PyBytes_AS_STRING(sealed), size + TAG_BYTES)
        context = gcm_new(PyBytes_GET_SIZE(key) == 32, False)
        if context is NULL:
            raise SealError("OpenSSL has no AES-GCM")
        is_whole = gcm(context, False, <const unsigned char*>PyBytes_AS_STRING(key),
                       <const unsigned char*>PyBytes_AS_STRING(nonce),
                       <const unsigned char*>PyBytes_AS_STRING(head), <int>PyBytes_GET_SIZE(head),
                       data, <int>size, data + size)
        gcm_free(context)
        return plain[:size] if is_whole else None


@cython.final
cdef class SealedSocket:
    def __cinit__(self):
        self.net_fd = self.pair_fd = -1

    def __init__(self, int net_fd, bytes secret not None, uint32_t number=0, int pair_fd=-1):
        begin(&self.seal, secret, number)
        self.net_fd = net_fd
        self.pair_fd = pair_fd

    def __dealloc__(self):
        if crypto_load() is NULL:
            seal_wipe(&self.seal)
        if self.net_fd >= 0:
            close(self.net_fd)
        if self.pair_fd >= 0:
            close(self.pair_fd)
