# The native face of TLS: certificates, and the door that accepts, shakes hands and copies. The
# implementation is in `native/`: `openssl`, `certificates`, `relay`, `door`. Arguments are checked
# here, so that the headers can rely on them.

import os
import socket

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.errno cimport errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, strerror

from fastsse._seal cimport SealedSocket
from fastsse.native.aead cimport crypto_load
from fastsse.native.certificates cimport (
    TICKET_KEY_BYTES, certificates_free, certificates_new, context_new, log_keys, set_ticket_keys)
from fastsse.native.certificates cimport Certificates as NativeCertificates
from fastsse.native.door cimport (
    CERTIFY, LISTEN, PAUSE, QUIT, RELEASE, SEAL, DoorCommand, door_clear, door_command_free,
    door_command_new, door_init, door_main, door_send)
from fastsse.native.door_table cimport (
    ACCEPTED, EXHAUSTED, FAILED, KEPT, PLAIN, RELEASED, Notice, notice_free)
from fastsse.native.door_table cimport Door as NativeDoor
from fastsse.native.memory cimport native_bytes
from fastsse.native.openssl cimport (
    ERR_clear_error, ERR_get_error, ERR_reason_error_string, FILE_PEM, OpenSSL_version,
    SSL_CTX, SSL_CTX_check_private_key, SSL_CTX_get0_certificate, SSL_CTX_use_PrivateKey_file,
    SSL_CTX_use_certificate_chain_file, TLS_1_2, TLS_1_3, X509_check_host, not_after_s,
    openssl_load)
from fastsse.native.os cimport (
    eventfd_read, pthread_join, relaxed_add, relaxed_load, relaxed_store, swap_pointer,
    thread_start)
from fastsse.native.wire_trace cimport FIT_COUNT

TICKET_BYTES = TICKET_KEY_BYTES
KIND_ACCEPTED, KIND_PLAIN, KIND_FAILED, KIND_EXHAUSTED = ACCEPTED, PLAIN, FAILED, EXHAUSTED
COUNTERS = (
    "open", "under_way", "closing", "full", "resumed", "failed", "timed_out", "evicted", "left",
    "plain", "unclaimed")
FITS = (
    "released", "old_version", "other_cipher", "small_records", "busy", "unproven", "gone")
assert len(FITS) == FIT_COUNT


class TlsError(Exception):
    def __init__(self, str part, str detail, int index=0):
        super().__init__(detail)
        self.part = part
        self.detail = detail
        self.index = index


def native_bytes_held():
    return relaxed_load(&native_bytes)


cdef str reason_of(unsigned long code):
    cdef const char* text = NULL
    if code:
        text = ERR_reason_error_string(code)
    return "" if text is NULL else text.decode(errors="replace")


cdef int load_library() except -1:
    cdef const char* missing = openssl_load()
    if missing is not NULL:
        raise TlsError("library", f"OpenSSL 3 is needed for TLS, and {missing.decode()} was not found")
    return 0


def library_version():
    load_library()
    return OpenSSL_version(0).decode()


cdef int load_pair(SSL_CTX* context, bytes certificate, bytes key, int index) except -1:
    ERR_clear_error()
    if SSL_CTX_use_certificate_chain_file(context, PyBytes_AS_STRING(certificate)) != 1:
        raise TlsError("certificate", reason_of(ERR_get_error()), index)
    if SSL_CTX_use_PrivateKey_file(context, PyBytes_AS_STRING(key), FILE_PEM) != 1:
        raise TlsError("key", reason_of(ERR_get_error()), index)
    if SSL_CTX_check_private_key(context) != 1:
        raise TlsError("key", reason_of(ERR_get_error()), index)
    return 0


@cython.final
cdef class Certificates:
    cdef NativeCertificates* native
    cdef readonly tuple expires_s

    def __cinit__(self, pairs, *, bint only_1_3=False):
        cdef int index
        cdef SSL_CTX* context
        load_library()
        pairs = [(<bytes?>certificate, <bytes?>key) for certificate, key in pairs]
        if not pairs:
            raise ValueError("at least one certificate is needed")
        self.native = certificates_new(<uint32_t>len(pairs))
        for index, (certificate, key) in enumerate(pairs):
            context = context_new(TLS_1_3 if only_1_3 else TLS_1_2)
            if context is NULL:
                raise TlsError("library", reason_of(ERR_get_error()))
            self.native.contexts[index] = context
            load_pair(context, certificate, key, index)
        self.expires_s = tuple([
            not_after_s(SSL_CTX_get0_certificate(self.native.contexts[index]))
            for index in range(len(pairs))])

    def __dealloc__(self):
        certificates_free(self.native)

    def has_name(self, int index, bytes name not None):
        if self.native is NULL or not 0 <= index < <int>self.native.count:
            raise IndexError("no such certificate")
        return X509_check_host(
            SSL_CTX_get0_certificate(self.native.contexts[index]), PyBytes_AS_STRING(name),
            PyBytes_GET_SIZE(name), 0, NULL) == 1

    cdef NativeCertificates* give(self) except NULL:
        """Hands them over to a door."""
        cdef NativeCertificates* given = self.native
        if given is NULL:
            raise RuntimeError("a door has these certificates already")
        self.native = NULL
        return given


cdef object address_of(const char* address):
    """(host, port) from a sockaddr."""
    cdef bytes raw = address[:28]
    family = int.from_bytes(raw[:2], "little" if IS_LITTLE else "big")
    port = int.from_bytes(raw[2:4], "big")
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, raw[4:8]), port
    if family == socket.AF_INET6:
        return socket.inet_ntop(socket.AF_INET6, raw[8:24]), port
    return None


IS_LITTLE = __import__("sys").byteorder == "little"


@cython.final
cdef class Door:
    cdef NativeDoor* door
    cdef bint started
    cdef bint stopped
    cdef list released         # answers that `take_released` gives

    def __cinit__(
            self, Certificates certificates not None, bytes ticket_keys not None, *,
            uint32_t handshakes_max=256, uint32_t handshake_timeout_ms=10_000,
            int send_buffer_bytes=16_384, bint releases=False, uint32_t net_limit=0, uint32_t net_refuse_every=0,
            uint32_t pair_limit=0):
        check_ticket_keys(ticket_keys)
        if not 1 <= handshakes_max <= 1_000_000:
            raise ValueError("handshakes_max must be 1 to 1000000")
        if not 1 <= handshake_timeout_ms <= 3_600_000:
            raise ValueError("handshake_timeout_ms must be 1 to 3600000")
        if releases and crypto_load() is not NULL:
            raise TlsError("library", "OpenSSL 3 is needed, and libcrypto was not found")
        self.released = []
        self.door = <NativeDoor*>calloc(1, sizeof(NativeDoor))
        if self.door is NULL:
            raise MemoryError()
        self.door.options.handshakes_max = handshakes_max
        self.door.options.handshake_timeout_us = <uint64_t>handshake_timeout_ms * 1000
        self.door.options.send_buffer_bytes = send_buffer_bytes
        self.door.options.releases = releases
        self.door.options.net_limit = net_limit
        self.door.options.net_refuse_every = net_refuse_every
        self.door.options.pair_limit = pair_limit
        if door_init(self.door):
            raise OSError(errno, strerror(errno).decode())
        self.certify(certificates, ticket_keys)

    def __dealloc__(self):
        if self.door is not NULL and not self.stopped:
            self.end_thread()
        free(self.door)

    def start(self):
        if self.started:
            raise RuntimeError("the door was started before")
        if thread_start(&self.door.thread, door_main, self.door, b"fastsse-door"):
            raise RuntimeError("no thread can be started")
        self.started = True

    def stop(self):
        if not self.stopped:
            self.end_thread()
        self.released = []     # What was not taken is closed.

    cdef void end_thread(self) noexcept:
        if self.started:
            door_send(self.door, door_command_new(QUIT, 0))
            with nogil:
                pthread_join(self.door.thread, NULL)
        door_clear(self.door)
        self.stopped = True

    cdef int check_open(self) except -1:
        if self.stopped:
            raise RuntimeError("the door is closed")
        return 0

    @property
    def notice_fd(self):
        return self.door.notice_fd

    def certify(self, Certificates certificates not None, bytes ticket_keys not None):
        cdef DoorCommand* command
        self.check_open()
        check_ticket_keys(ticket_keys)
        command = door_command_new(CERTIFY, 0)
        try:
            command.certificates = certificates.give()
        except BaseException:
            door_command_free(command)
            raise
        set_ticket_keys(command.certificates, PyBytes_AS_STRING(ticket_keys))
        if self.door.options.releases:
            log_keys(command.certificates)
        door_send(self.door, command)

    def seal_tickets(self, bytes ticket_keys not None):
        cdef DoorCommand* command
        self.check_open()
        check_ticket_keys(ticket_keys)
        command = door_command_new(SEAL, 0)
        memcpy(command.ticket_keys, PyBytes_AS_STRING(ticket_keys), TICKET_KEY_BYTES)
        door_send(self.door, command)

    def listen(self, uint8_t source, fds):
        cdef DoorCommand* command
        cdef int index
        self.check_open()
        copies = []
        try:
            for fd in fds:
                copies.append(os.dup(fd))
        except BaseException:
            for fd in copies:
                os.close(fd)
            raise
        command = door_command_new(LISTEN, <uint32_t>len(copies))
        command.source = source
        for index in range(len(copies)):
            command.fds[index] = copies[index]
        door_send(self.door, command)

    def pause(self, uint32_t duration_ms):
        cdef DoorCommand* command
        self.check_open()
        command = door_command_new(PAUSE, 0)
        command.pause_us = <uint64_t>duration_ms * 1000
        door_send(self.door, command)

    def release(self, uint64_t number, uint64_t handle):
        cdef DoorCommand* command
        self.check_open()
        command = door_command_new(RELEASE, 0)
        command.number = number
        command.asked = handle
        door_send(self.door, command)

    def take_released(self):
        taken, self.released = self.released, []
        return taken

    cdef void note_released(self, Notice* notice):
        """Takes over the descriptors and the keys, if the connection is released."""
        cdef SealedSocket sealed = None
        if notice.kind == RELEASED:
            sealed = SealedSocket.__new__(SealedSocket)
            sealed.seal = notice.seal
            sealed.net_fd, sealed.pair_fd = notice.fd, notice.pair_fd
        self.released.append((notice.number, sealed, FITS[notice.code]))

    def take(self):
        cdef Notice* notice
        cdef Notice* older
        cdef uint64_t count
        cdef list taken = []
        self.check_open()
        eventfd_read(self.door.notice_fd, &count)
        notice = <Notice*>swap_pointer(&self.door.notices, NULL)
        while notice is not NULL:
            older = notice.next
            if notice.fd >= 0:
                relaxed_add(&self.door.counters.unclaimed, -1)
            elif notice.kind == FAILED:
                relaxed_store(&self.door.failure_notified, 0)
            if notice.kind == RELEASED or notice.kind == KEPT:
                self.note_released(notice)
            else:
                taken.append((
                    notice.kind, notice.fd, notice.source, address_of(notice.address),
                    reason_of(notice.code), notice.number))
            notice_free(notice)
            notice = older
        taken.reverse()
        return taken

    def counters(self):
        return {
            "open": relaxed_load(&self.door.counters.open),
            "under_way": relaxed_load(&self.door.counters.under_way),
            "closing": relaxed_load(&self.door.counters.closing),
            "full": relaxed_load(&self.door.counters.full),
            "resumed": relaxed_load(&self.door.counters.resumed),
            "failed": relaxed_load(&self.door.counters.failed),
            "timed_out": relaxed_load(&self.door.counters.timed_out),
            "evicted": relaxed_load(&self.door.counters.evicted),
            "left": relaxed_load(&self.door.counters.left),
            "plain": relaxed_load(&self.door.counters.plain),
            "unclaimed": relaxed_load(&self.door.counters.unclaimed),
            **{f"records_{name}": relaxed_load(&self.door.counters.kept[index])
               for index, name in enumerate(FITS)},
        }


cdef int check_ticket_keys(bytes keys) except -1:
    if PyBytes_GET_SIZE(keys) != TICKET_KEY_BYTES:
        raise ValueError(f"ticket_keys must be {TICKET_KEY_BYTES} bytes")
    return 0
