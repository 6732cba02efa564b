# Records of TLS 1.3 with AES-GCM (RFC 8446 §5.2, §5.3, §7.3): keys from the secret of one direction,
# records that are sealed with them, and the check of one that somebody else has sealed.
#
# A nonce is the number of a record, mixed with `iv`. `seal_record` is the one function that takes
# numbers. It takes the next one before it encrypts, whatever follows, so no number is taken twice.
# What it wrote is sent or kept as it is; nothing is sealed a second time.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset, strlen

from fastsse.native.aead cimport GcmContext, gcm, gcm_forget, gcm_free, gcm_new, hmac, wipe
from fastsse.native.memory cimport alloc, release

cdef enum:
    RECORD_HEAD_BYTES = 5
    PLAIN_BYTES_MAX = 16384    # of one record
    TAG_BYTES = 16
    SEALED_BYTES_MAX = RECORD_HEAD_BYTES + PLAIN_BYTES_MAX + 1 + TAG_BYTES
    SECRET_BYTES_MAX = 48
    # No key seals more records. RFC 8446 §5.5 allows 2**24.5.
    RECORDS_MAX = 1 << 24

cdef enum RecordKind:
    ALERT = 21
    APPLICATION_DATA = 23


# Bit fields, so that a row with the rest of a record has 56 bytes.
cdef extern from * nogil:
    """
    #ifndef FASTSSE_SEAL
    #define FASTSSE_SEAL
    #include <stdint.h>
    struct fastsse_seal {
        unsigned char key[32];
        unsigned char iv[12];
        uint32_t number : 25;
        uint32_t is_256 : 1;
        uint32_t phase : 2;
    };
    #endif
    """
    struct Seal "fastsse_seal":
        unsigned char[32] key  # AES-128 has the first half
        unsigned char[12] iv
        uint32_t number        # of the next record; RECORDS_MAX at most
        uint32_t is_256
        uint32_t phase         # of the row that has the keys, see `sealed_row`


# What one thread seals with: a context for each length of key, and room for one record.
cdef struct Sealer:
    GcmContext* short_keys
    GcmContext* long_keys
    unsigned char[SEALED_BYTES_MAX] record


cdef inline void sealer_free(Sealer* sealer) noexcept nogil:
    if sealer is NULL:
        return
    if sealer.short_keys is not NULL:
        gcm_free(sealer.short_keys)
    if sealer.long_keys is not NULL:
        gcm_free(sealer.long_keys)
    release(sealer, sizeof(Sealer))


cdef inline Sealer* sealer_new() noexcept nogil:
    """NULL when OpenSSL refuses. `crypto_load` was called before."""
    cdef Sealer* sealer = <Sealer*>alloc(sizeof(Sealer))
    sealer.short_keys = gcm_new(False, True)
    sealer.long_keys = gcm_new(True, True)
    if sealer.short_keys is NULL or sealer.long_keys is NULL:
        sealer_free(sealer)
        return NULL
    return sealer


cdef inline unsigned char* sealer_room(Sealer* sealer) noexcept nogil:
    """Where the plain bytes of the next record go: PLAIN_BYTES_MAX."""
    return sealer.record + RECORD_HEAD_BYTES


cdef inline void sealer_forget(Sealer* sealer, Seal* seal) noexcept nogil:
    """Wipes a key that was used last from the sealer."""
    gcm_forget(sealer.long_keys if seal.is_256 else sealer.short_keys)


cdef inline void seal_wipe(Seal* seal) noexcept nogil:
    wipe(seal, sizeof(Seal))


# ---- keys ----------------------------------------------------------------------------------------

cdef inline bint expand_label(
        const unsigned char* secret, uint32_t secret_bytes, const char* label,
        unsigned char* out, uint32_t size) noexcept nogil:
    """HKDF-Expand-Label without a context (RFC 8446 §7.1), of at most one block of the hash."""
    cdef unsigned char[32] info
    cdef unsigned char[64] block
    cdef uint32_t label_bytes = <uint32_t>strlen(label)
    cdef bint done
    info[0] = 0
    info[1] = <unsigned char>size
    info[2] = <unsigned char>(6 + label_bytes)
    memcpy(info + 3, b"tls13 ", 6)
    memcpy(info + 9, label, label_bytes)
    info[9 + label_bytes] = 0          # no context
    info[10 + label_bytes] = 1         # the first block
    done = hmac(secret_bytes == 48, secret, <int>secret_bytes, info, 11 + label_bytes, block)
    memcpy(out, block, size)
    wipe(block, sizeof(block))
    return done


cdef inline bint seal_begin(
        Seal* seal, const unsigned char* secret, uint32_t secret_bytes, uint32_t number) noexcept nogil:
    """Keys of a direction. A secret of 32 bytes is of TLS_AES_128_GCM_SHA256, one of 48 bytes of
    TLS_AES_256_GCM_SHA384. `number`: of the next record. False: OpenSSL refuses."""
    memset(seal, 0, sizeof(Seal))
    seal.is_256 = secret_bytes == 48
    seal.number = number
    return expand_label(secret, secret_bytes, b"key", seal.key, 32 if seal.is_256 else 16) \
        and expand_label(secret, secret_bytes, b"iv", seal.iv, 12)


# ---- records -------------------------------------------------------------------------------------

cdef inline void write_nonce(Seal* seal, uint64_t number, unsigned char* nonce) noexcept nogil:
    cdef int index
    memcpy(nonce, seal.iv, 12)
    for index in range(8):
        nonce[11 - index] ^= <unsigned char>(number >> (8 * index))


cdef inline uint32_t seal_record(
        Sealer* sealer, Seal* seal, uint32_t size, uint8_t kind) noexcept nogil:
    """Seals the `size` plain bytes in the room of the sealer as the next record, in place. Returns the
    length of the record; 0 if the key has sealed all its records, or OpenSSL refuses."""
    cdef unsigned char[12] nonce
    cdef unsigned char* record = sealer.record
    cdef uint32_t inner = size + 1
    if seal.number >= RECORDS_MAX or size > PLAIN_BYTES_MAX:
        return 0
    write_nonce(seal, seal.number, nonce)
    seal.number += 1           # taken, even if the next steps fail
    record[0] = APPLICATION_DATA
    record[1] = record[2] = 3
    record[3] = <unsigned char>((inner + TAG_BYTES) >> 8)
    record[4] = <unsigned char>(inner + TAG_BYTES)
    record[RECORD_HEAD_BYTES + size] = kind
    if not gcm(sealer.long_keys if seal.is_256 else sealer.short_keys, True, seal.key, nonce,
               record, RECORD_HEAD_BYTES, record + RECORD_HEAD_BYTES, <int>inner,
               record + RECORD_HEAD_BYTES + inner):
        return 0
    return RECORD_HEAD_BYTES + inner + TAG_BYTES


cdef inline bint is_record_of(
        Seal* seal, const unsigned char* record, uint32_t size, uint64_t number) noexcept nogil:
    """Whether a record was sealed with these keys under this number."""
    cdef unsigned char[12] nonce
    cdef unsigned char* copy
    cdef GcmContext* context
    cdef bint is_so
    if size < RECORD_HEAD_BYTES + 1 + TAG_BYTES:
        return False
    context = gcm_new(seal.is_256, False)
    if context is NULL:
        return False
    write_nonce(seal, number, nonce)
    copy = <unsigned char*>alloc(size)
    memcpy(copy, record, size)
    is_so = gcm(context, False, seal.key, nonce, copy, RECORD_HEAD_BYTES, copy + RECORD_HEAD_BYTES,
                <int>(size - RECORD_HEAD_BYTES - TAG_BYTES), copy + size - TAG_BYTES)
    wipe(copy, size)
    release(copy, size)
    gcm_free(context)
    return is_so
