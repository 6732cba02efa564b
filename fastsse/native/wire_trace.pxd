# What OpenSSL has written on a connection whose records may become ours: the secret of its direction,
# how many records went out, and the newest one as it went out.
#
# `prove` says under which number OpenSSL sealed that record, by opening it. So the number of the next
# record does not rest on a count of what OpenSSL does, and neither do the keys.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset, strncmp, strrchr

from fastsse.native.aead cimport wipe
from fastsse.native.hex cimport hex_digit
from fastsse.native.memory cimport alloc, release, resize
from fastsse.native.openssl cimport (
    AES_128_GCM_SHA256, AES_256_GCM_SHA384, BIO, BIO_WROTE, BIO_get_callback_arg,
    BIO_set_callback_arg, BIO_set_callback_ex, SSL, SSL_CIPHER_get_protocol_id,
    SSL_SESSION_get_max_fragment_length, SSL_get_current_cipher, SSL_get_ex_data, SSL_get_session,
    SSL_get_wbio, SSL_set_ex_data, SSL_version, TLS_1_3)
from fastsse.native.record_seal cimport (
    APPLICATION_DATA, RECORD_HEAD_BYTES, RECORDS_MAX, SECRET_BYTES_MAX, Seal, is_record_of,
    seal_begin, seal_wipe)

cdef enum:
    # A server sends so many sealed records of a handshake at most, under other keys and before all
    # that count: five messages, of which a long chain of certificates takes several records.
    HANDSHAKE_RECORDS_MAX = 16
    SECRET_LINE_BYTES = 24     # "SERVER_TRAFFIC_SECRET_0 "

# Why a connection stays with OpenSSL.
cdef enum Fit:
    FITS
    OLD_VERSION                # TLS 1.2
    OTHER_CIPHER               # no AES-GCM
    SMALL_RECORDS              # the client asked for a smaller largest record
    BUSY                       # something waits to be sent or to be read
    UNPROVEN                   # the keys do not open the newest record
    GONE                       # it has ended
    FIT_COUNT


cdef struct WireTrace:
    unsigned char[SECRET_BYTES_MAX] secret
    uint8_t secret_bytes       # 0 until OpenSSL has it
    uint8_t fit                # set when the handshake is complete
    uint8_t header_bytes       # of the record under way
    unsigned char[RECORD_HEAD_BYTES] header
    uint32_t left              # bytes of its body still to come
    size_t unsent              # bytes that OpenSSL wanted to write and the socket did not take
    uint64_t records           # sealed ones that went out whole
    unsigned char* newest      # the newest sealed record
    uint32_t size
    uint32_t capacity


cdef inline WireTrace* trace_new(SSL* ssl) noexcept nogil:
    """Follows a connection whose socket OpenSSL has already. NULL when OpenSSL refuses."""
    cdef WireTrace* trace = <WireTrace*>alloc(sizeof(WireTrace))
    memset(trace, 0, sizeof(WireTrace))
    if SSL_set_ex_data(ssl, 0, trace) != 1:
        release(trace, sizeof(WireTrace))
        return NULL
    BIO_set_callback_arg(SSL_get_wbio(ssl), <char*>trace)
    BIO_set_callback_ex(SSL_get_wbio(ssl), on_wire)
    return trace


cdef inline void forget_records(WireTrace* trace) noexcept nogil:
    release(trace.newest, trace.capacity)
    trace.newest = NULL
    trace.size = trace.capacity = 0
    wipe(trace.secret, SECRET_BYTES_MAX)
    trace.secret_bytes = 0


cdef inline void trace_free(WireTrace* trace) noexcept nogil:
    """After OpenSSL's part of the connection was freed, which calls with it."""
    if trace is not NULL:
        forget_records(trace)
        release(trace, sizeof(WireTrace))


# ---- the secret ----------------------------------------------------------------------------------

cdef inline void on_key_line(const SSL* ssl, const char* line) noexcept nogil:
    """A line of OpenSSL's key log: the name of a secret, the client's random, the secret."""
    cdef WireTrace* trace = <WireTrace*>SSL_get_ex_data(ssl, 0)
    cdef const char* digits
    cdef uint8_t size = 0
    if trace is NULL or strncmp(line, b"SERVER_TRAFFIC_SECRET_0 ", SECRET_LINE_BYTES):
        return
    digits = strrchr(line, c' ') + 1
    while size < SECRET_BYTES_MAX and hex_digit(digits[0]) >= 0 and hex_digit(digits[1]) >= 0:
        trace.secret[size] = <unsigned char>(hex_digit(digits[0]) << 4 | hex_digit(digits[1]))
        size += 1
        digits += 2
    trace.secret_bytes = size if digits[0] == 0 else 0


# ---- what went out -------------------------------------------------------------------------------

cdef inline void begin_record(WireTrace* trace) noexcept nogil:
    """Its header is there. Only sealed records are kept."""
    cdef uint32_t size
    trace.left = <uint32_t>trace.header[3] << 8 | trace.header[4]
    if trace.header[0] != APPLICATION_DATA:
        return
    size = RECORD_HEAD_BYTES + trace.left
    if trace.capacity < size:
        trace.newest = <unsigned char*>resize(trace.newest, trace.capacity, size)
        trace.capacity = size
    memcpy(trace.newest, trace.header, RECORD_HEAD_BYTES)
    trace.size = RECORD_HEAD_BYTES


cdef inline void add_written(WireTrace* trace, const char* bytes, size_t size) noexcept nogil:
    cdef size_t taken
    while size:
        if trace.left == 0:
            trace.header[trace.header_bytes] = <unsigned char>bytes[0]
            trace.header_bytes += 1
            taken = 1
            if trace.header_bytes == RECORD_HEAD_BYTES:
                begin_record(trace)
        else:
            taken = min(size, <size_t>trace.left)
            if trace.header[0] == APPLICATION_DATA:
                memcpy(trace.newest + trace.size, bytes, taken)
                trace.size += <uint32_t>taken
            trace.left -= <uint32_t>taken
        if trace.header_bytes == RECORD_HEAD_BYTES and trace.left == 0:
            trace.records += trace.header[0] == APPLICATION_DATA
            trace.header_bytes = 0
        bytes += taken
        size -= taken


cdef inline long on_wire(
        BIO* bio, int operation, const char* bytes, size_t size, int number, long more, int result,
        size_t* processed) noexcept nogil:
    """OpenSSL calls it around each read and write of the socket."""
    cdef WireTrace* trace
    cdef size_t written
    if operation == BIO_WROTE:
        trace = <WireTrace*>BIO_get_callback_arg(bio)
        written = processed[0] if result > 0 and processed is not NULL else 0
        trace.unsent = size - written
        if trace.fit == FITS:
            add_written(trace, bytes, written)
    return result


# ---- does it fit ---------------------------------------------------------------------------------

cdef inline Fit fit_of(SSL* ssl, WireTrace* trace) noexcept nogil:
    """After the handshake: whether the records of such a connection can be ours."""
    cdef uint16_t suite
    if SSL_version(ssl) != TLS_1_3:
        return OLD_VERSION
    suite = SSL_CIPHER_get_protocol_id(SSL_get_current_cipher(ssl))
    if suite != AES_128_GCM_SHA256 and suite != AES_256_GCM_SHA384:
        return OTHER_CIPHER
    if SSL_SESSION_get_max_fragment_length(SSL_get_session(ssl)):
        return SMALL_RECORDS
    return FITS if trace.secret_bytes == (32 if suite == AES_128_GCM_SHA256 else 48) else UNPROVEN


cdef inline void on_handshake_complete(SSL* ssl, WireTrace* trace) noexcept nogil:
    trace.fit = fit_of(ssl, trace)
    if trace.fit != FITS:
        forget_records(trace)


cdef inline bint is_quiet(WireTrace* trace) noexcept nogil:
    """Whether everything that OpenSSL has sealed went out."""
    return trace.unsent == 0 and trace.header_bytes == 0 and trace.left == 0


cdef inline bint prove(WireTrace* trace, Seal* seal) noexcept nogil:
    """Finds the number of the newest record by opening it, and sets keys and the next number."""
    cdef uint64_t hidden
    if trace.size == 0 or not seal_begin(seal, trace.secret, trace.secret_bytes, 0):
        return False
    for hidden in range(<uint64_t>HANDSHAKE_RECORDS_MAX):
        if trace.records <= hidden or trace.records - hidden > RECORDS_MAX >> 1:
            continue
        if is_record_of(seal, trace.newest, trace.size, trace.records - 1 - hidden):
            seal.number = <uint32_t>(trace.records - hidden)
            return True
    seal_wipe(seal)
    return False
