# Certificates with their keys, each in a context of OpenSSL, and the choice between them by the name
# that a client asks for (SNI). Made on the loop thread, used and freed on the door's.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, strlen

from fastsse.native.memory cimport alloc, release
from fastsse.native.openssl cimport (
    CTRL_MODE, CTRL_SET_MIN_PROTO_VERSION, CTRL_SET_SESS_CACHE_MODE, CTRL_SET_TLSEXT_SERVERNAME_ARG,
    CTRL_SET_TLSEXT_SERVERNAME_CB, CTRL_SET_TLSEXT_TICKET_KEYS, EXT_ALERT_FATAL, EXT_NOACK, EXT_OK, CIPHERS, HTTP_1_1,
    MODE_ACCEPT_MOVING_WRITE_BUFFER, MODE_ENABLE_PARTIAL_WRITE, MODE_RELEASE_BUFFERS,
    OP_CIPHER_SERVER_PREFERENCE, OP_IGNORE_UNEXPECTED_EOF, OP_NO_COMPRESSION, OP_NO_RENEGOTIATION,
    OP_PRIORITIZE_CHACHA, SSL, SSL_CTX, SSL_CTX_callback_ctrl, SSL_CTX_ctrl, SSL_CTX_free,
    SSL_CTX_get0_certificate, SSL_CTX_new, SSL_CTX_set_alpn_select_cb, SSL_CTX_set_cipher_list,
    SSL_CTX_set_default_passwd_cb, SSL_CTX_set_num_tickets, SSL_CTX_set_options,
    SSL_CTX_set_keylog_callback, SSL_CTX_set_session_id_context,
    SSL_get_servername, SSL_set_SSL_CTX, TLS_server_method, X509_check_host, any_callback,
    keylog_callback, no_passphrase)
from fastsse.native.wire_trace cimport on_key_line

cdef enum:
    TICKET_KEY_BYTES = 80      # name, HMAC key and AES key, as OpenSSL takes them


cdef struct Certificates:
    uint32_t count
    SSL_CTX** contexts         # the first one answers names that no certificate has


cdef inline Certificates* certificates_new(uint32_t count) noexcept nogil:
    cdef Certificates* made = <Certificates*>alloc(sizeof(Certificates))
    cdef uint32_t index
    made.count = count
    made.contexts = <SSL_CTX**>alloc(count * sizeof(SSL_CTX*))
    for index in range(count):
        made.contexts[index] = NULL
    return made


cdef inline void certificates_free(Certificates* certificates) noexcept nogil:
    """Frees the certificates. Open connections keep what they need: OpenSSL counts references."""
    cdef uint32_t index
    if certificates is NULL:
        return
    for index in range(certificates.count):
        if certificates.contexts[index] is not NULL:
            SSL_CTX_free(certificates.contexts[index])
    release(certificates.contexts, certificates.count * sizeof(SSL_CTX*))
    release(certificates, sizeof(Certificates))


cdef inline void set_ticket_keys(Certificates* certificates, void* keys) noexcept nogil:
    """Sets the keys of session tickets. A ticket with other keys leads to a full handshake."""
    cdef uint32_t index
    for index in range(certificates.count):
        SSL_CTX_ctrl(
            certificates.contexts[index], CTRL_SET_TLSEXT_TICKET_KEYS, TICKET_KEY_BYTES, keys)


cdef inline int on_protocols(
        SSL* ssl, const unsigned char** chosen, unsigned char* chosen_bytes,
        const unsigned char* offered, unsigned int size, void* argument) noexcept nogil:
    """ALPN: http/1.1, or the handshake fails (RFC 7301 §3.2)."""
    cdef unsigned int at = 0
    while at + 9 <= size:
        if memcmp(offered + at, HTTP_1_1, 9) == 0:
            chosen[0] = offered + at + 1
            chosen_bytes[0] = 8
            return EXT_OK
        at += 1 + offered[at]
    return EXT_ALERT_FATAL


cdef inline int on_name(SSL* ssl, int* alert, void* argument) noexcept nogil:
    """SNI: the first certificate that has the name. OpenSSL judges whether it has, wildcards too.
    An unknown name gets the first one, whose error the client can show."""
    cdef Certificates* certificates = (<Certificates**>argument)[0]
    cdef const char* name = SSL_get_servername(ssl, 0)
    cdef uint32_t index
    if name is NULL:
        return EXT_NOACK
    for index in range(certificates.count):
        if X509_check_host(
                SSL_CTX_get0_certificate(certificates.contexts[index]), name, strlen(name), 0,
                NULL) == 1:
            if index:
                SSL_set_SSL_CTX(ssl, certificates.contexts[index])
            return EXT_OK
    return EXT_NOACK


cdef inline void certificates_serve(Certificates* certificates, Certificates** place) noexcept nogil:
    """Has each handshake choose among the certificates that `place` points to at that time."""
    cdef uint32_t index
    for index in range(certificates.count):
        SSL_CTX_callback_ctrl(
            certificates.contexts[index], CTRL_SET_TLSEXT_SERVERNAME_CB, <any_callback>on_name)
        SSL_CTX_ctrl(certificates.contexts[index], CTRL_SET_TLSEXT_SERVERNAME_ARG, 0, place)


cdef inline void log_keys(Certificates* certificates) noexcept nogil:
    """Has OpenSSL give the secrets of each connection to its trace."""
    cdef uint32_t index
    for index in range(certificates.count):
        SSL_CTX_set_keylog_callback(certificates.contexts[index], <keylog_callback>on_key_line)


cdef inline SSL_CTX* context_new(int version) noexcept nogil:
    """A context without a certificate; NULL when OpenSSL refuses. No renegotiation, no
    compression, no early data (OpenSSL's default), tickets instead of a cache."""
    cdef SSL_CTX* context = SSL_CTX_new(TLS_server_method())
    if context is NULL:
        return NULL
    # The end of a request is known from HTTP, so a client that closes without close_notify, as
    # many do, is no error.
    SSL_CTX_set_options(
        context, <uint64_t>OP_NO_RENEGOTIATION | OP_NO_COMPRESSION | OP_CIPHER_SERVER_PREFERENCE
        | OP_PRIORITIZE_CHACHA | OP_IGNORE_UNEXPECTED_EOF)
    SSL_CTX_ctrl(
        context, CTRL_MODE, MODE_ENABLE_PARTIAL_WRITE | MODE_ACCEPT_MOVING_WRITE_BUFFER
        | MODE_RELEASE_BUFFERS, NULL)
    SSL_CTX_ctrl(context, CTRL_SET_SESS_CACHE_MODE, 0, NULL)
    # OpenSSL's default is two. A stream's client opens one connection, and each ticket is sealed and
    # sent on its own.
    SSL_CTX_set_num_tickets(context, 1)
    SSL_CTX_set_default_passwd_cb(context, no_passphrase)
    SSL_CTX_set_alpn_select_cb(context, on_protocols, NULL)
    if SSL_CTX_ctrl(context, CTRL_SET_MIN_PROTO_VERSION, version, NULL) != 1 \
            or SSL_CTX_set_cipher_list(context, CIPHERS) != 1 \
            or SSL_CTX_set_session_id_context(context, <const unsigned char*>b"fastsse", 7) != 1:
        SSL_CTX_free(context)
        return NULL
    return context
