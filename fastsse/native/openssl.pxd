# The functions of OpenSSL 3 that the door uses, found by `dlopen` when the first certificate is
# loaded. So neither building nor starting fastsse needs OpenSSL, and the distribution patches it.
# The numbers are those of OpenSSL's headers; its binary interface keeps them for all of version 3.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t

cdef extern from * nogil:
    """
    #ifndef FASTSSE_OPENSSL
    #define FASTSSE_OPENSSL
    #include <dlfcn.h>
    #include <stdint.h>
    #include <sys/socket.h>

    typedef struct ssl_st SSL;
    typedef struct ssl_ctx_st SSL_CTX;
    typedef struct x509_st X509;
    typedef struct bio_st BIO;
    typedef void (*fastsse_callback)(void);
    typedef int (*fastsse_passphrase_callback)(char *, int, int, void *);
    typedef void (*fastsse_keylog_callback)(const SSL *, const char *);
    typedef long (*fastsse_bio_callback)(BIO *, int, const char *, size_t, int, long, int, size_t *);
    typedef int (*fastsse_alpn_callback)(SSL *, const unsigned char **, unsigned char *,
                                         const unsigned char *, unsigned, void *);

    /* Forward secrecy and authenticated encryption only. All suites of TLS 1.3 are so. */
    #define FASTSSE_CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20"
    /* As ALPN writes it: its length, then the name. */
    #define FASTSSE_HTTP_1_1 "\\x08http/1.1"

    #define FASTSSE_SSL_FUNCTIONS(F) \\
        F(const void *, TLS_server_method, (void)) \\
        F(SSL_CTX *, SSL_CTX_new, (const void *)) \\
        F(void, SSL_CTX_free, (SSL_CTX *)) \\
        F(long, SSL_CTX_ctrl, (SSL_CTX *, int, long, void *)) \\
        F(long, SSL_CTX_callback_ctrl, (SSL_CTX *, int, void (*)(void))) \\
        F(uint64_t, SSL_CTX_set_options, (SSL_CTX *, uint64_t)) \\
        F(int, SSL_CTX_set_num_tickets, (SSL_CTX *, size_t)) \\
        F(int, SSL_CTX_set_cipher_list, (SSL_CTX *, const char *)) \\
        F(int, SSL_CTX_set_session_id_context, (SSL_CTX *, const unsigned char *, unsigned)) \\
        F(void, SSL_CTX_set_default_passwd_cb, \\
          (SSL_CTX *, int (*)(char *, int, int, void *))) \\
        F(int, SSL_CTX_use_certificate_chain_file, (SSL_CTX *, const char *)) \\
        F(int, SSL_CTX_use_PrivateKey_file, (SSL_CTX *, const char *, int)) \\
        F(int, SSL_CTX_check_private_key, (const SSL_CTX *)) \\
        F(X509 *, SSL_CTX_get0_certificate, (const SSL_CTX *)) \\
        F(void, SSL_CTX_set_alpn_select_cb, \\
          (SSL_CTX *, int (*)(SSL *, const unsigned char **, unsigned char *, \\
                              const unsigned char *, unsigned, void *), void *)) \\
        F(void, SSL_CTX_set_keylog_callback, (SSL_CTX *, void (*)(const SSL *, const char *))) \\
        F(SSL *, SSL_new, (SSL_CTX *)) \\
        F(void, SSL_free, (SSL *)) \\
        F(int, SSL_set_fd, (SSL *, int)) \\
        F(void, SSL_set_bio, (SSL *, BIO *, BIO *)) \\
        F(void, SSL_set_accept_state, (SSL *)) \\
        F(int, SSL_do_handshake, (SSL *)) \\
        F(int, SSL_read, (SSL *, void *, int)) \\
        F(int, SSL_write, (SSL *, const void *, int)) \\
        F(int, SSL_shutdown, (SSL *)) \\
        F(int, SSL_get_error, (const SSL *, int)) \\
        F(int, SSL_session_reused, (const SSL *)) \\
        F(SSL_CTX *, SSL_set_SSL_CTX, (SSL *, SSL_CTX *)) \\
        F(const char *, SSL_get_servername, (const SSL *, int)) \\
        F(BIO *, SSL_get_wbio, (const SSL *)) \\
        F(int, SSL_set_ex_data, (SSL *, int, void *)) \\
        F(void *, SSL_get_ex_data, (const SSL *, int)) \\
        F(int, SSL_version, (const SSL *)) \\
        F(int, SSL_want, (const SSL *)) \\
        F(int, SSL_has_pending, (const SSL *)) \\
        F(const void *, SSL_get_current_cipher, (const SSL *)) \\
        F(uint16_t, SSL_CIPHER_get_protocol_id, (const void *)) \\
        F(const void *, SSL_get_session, (const SSL *)) \\
        F(uint8_t, SSL_SESSION_get_max_fragment_length, (const void *)) \\
        F(void, ERR_clear_error, (void)) \\
        F(unsigned long, ERR_get_error, (void)) \\
        F(const char *, ERR_reason_error_string, (unsigned long)) \\
        F(const char *, OpenSSL_version, (int)) \\
        F(void *, X509_get0_notAfter, (const X509 *)) \\
        F(int, ASN1_TIME_to_tm, (const void *, struct tm *)) \\
        F(int, X509_check_host, (X509 *, const char *, size_t, unsigned, char **)) \\
        F(void *, BIO_meth_new, (int, const char *)) \\
        F(int, BIO_meth_set_write, (void *, int (*)(BIO *, const char *, int))) \\
        F(int, BIO_meth_set_read, (void *, int (*)(BIO *, char *, int))) \\
        F(int, BIO_meth_set_ctrl, (void *, long (*)(BIO *, int, long, void *))) \\
        F(BIO *, BIO_new, (const void *)) \\
        F(void, BIO_set_callback_ex, (BIO *, fastsse_bio_callback)) \\
        F(void, BIO_set_callback_arg, (BIO *, char *)) \\
        F(char *, BIO_get_callback_arg, (const BIO *)) \\
        F(void, BIO_set_data, (BIO *, void *)) \\
        F(void *, BIO_get_data, (BIO *)) \\
        F(void, BIO_set_init, (BIO *, int)) \\
        F(void, BIO_set_flags, (BIO *, int)) \\
        F(void, BIO_clear_flags, (BIO *, int))

    static struct {
    #define FASTSSE_DECLARE(result, name, arguments) result (*name) arguments;
        FASTSSE_SSL_FUNCTIONS(FASTSSE_DECLARE)
    #undef FASTSSE_DECLARE
    } fastsse_openssl;

    /* NULL when every function was found, else what is missing. The library is never unloaded. */
    static const char *fastsse_openssl_load(void) {
        static void *library = NULL;
        if (library) return NULL;
        void *opened = dlopen("libssl.so.3", RTLD_NOW | RTLD_LOCAL);
        if (!opened) return "libssl.so.3";
    #define FASTSSE_FIND(result, name, arguments) \\
        *(void **)&fastsse_openssl.name = dlsym(opened, #name); \\
        if (!fastsse_openssl.name) { dlclose(opened); return #name; }
        FASTSSE_SSL_FUNCTIONS(FASTSSE_FIND)
    #undef FASTSSE_FIND
        library = opened;
        return NULL;
    }

    /* For tests: a socket that takes and gives at most `limit` bytes a call and refuses every
       `refuse_every`th call. The door itself has OpenSSL's own socket BIO. */
    typedef struct { int fd, limit, refuse_every, calls[2]; } FastsseLimitedSocket;

    static int fastsse_limited_io(BIO *bio, char *bytes, int size, int writes) {
        FastsseLimitedSocket *end = fastsse_openssl.BIO_get_data(bio);
        int done;
        fastsse_openssl.BIO_clear_flags(bio, 1 | 2 | 8);
        if (end->limit && size > end->limit) size = end->limit;
        if (end->refuse_every && ++end->calls[writes] % end->refuse_every == 0) {
            done = -1;
            errno = EAGAIN;
        } else if (writes) {
            done = (int)send(end->fd, bytes, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL);
        } else {
            done = (int)recv(end->fd, bytes, (size_t)size, MSG_DONTWAIT);
        }
        if (done < 0 && errno == EAGAIN)
            fastsse_openssl.BIO_set_flags(bio, (writes ? 2 : 1) | 8);
        return done;
    }

    static int fastsse_limited_write(BIO *bio, const char *bytes, int size) {
        return fastsse_limited_io(bio, (char *)bytes, size, 1);
    }

    static int fastsse_limited_read(BIO *bio, char *bytes, int size) {
        return fastsse_limited_io(bio, bytes, size, 0);
    }

    static long fastsse_limited_ctrl(BIO *bio, int command, long number, void *pointer) {
        (void)bio; (void)number; (void)pointer;
        return command == 11;  /* BIO_CTRL_FLUSH */
    }

    static int fastsse_use_limited_socket(SSL *ssl, FastsseLimitedSocket *end) {
        static void *method = NULL;
        BIO *bio;
        if (!method) {
            method = fastsse_openssl.BIO_meth_new(64 | 0x400, "limited socket");
            if (!method) return 0;
            fastsse_openssl.BIO_meth_set_write(method, fastsse_limited_write);
            fastsse_openssl.BIO_meth_set_read(method, fastsse_limited_read);
            fastsse_openssl.BIO_meth_set_ctrl(method, fastsse_limited_ctrl);
        }
        bio = fastsse_openssl.BIO_new(method);
        if (!bio) return 0;
        fastsse_openssl.BIO_set_data(bio, end);
        fastsse_openssl.BIO_set_init(bio, 1);
        fastsse_openssl.SSL_set_bio(ssl, bio, bio);
        return 1;
    }

    /* Seconds since 1970 at which a certificate ends; 0 if it can't be read. */
    static int64_t fastsse_not_after_s(X509 *certificate) {
        struct tm when;
        memset(&when, 0, sizeof when);
        if (!certificate
            || !fastsse_openssl.ASN1_TIME_to_tm(
                fastsse_openssl.X509_get0_notAfter(certificate), &when)) return 0;
        return (int64_t)timegm(&when);
    }

    /* A server never asks a terminal for the passphrase of a key. */
    static int fastsse_no_passphrase(char *into, int size, int writes, void *data) {
        (void)into; (void)size; (void)writes; (void)data;
        return -1;
    }
    #endif
    """
    ctypedef struct SSL:
        pass
    ctypedef struct SSL_CTX:
        pass
    ctypedef struct X509:
        pass
    ctypedef struct BIO:
        pass
    ctypedef struct LimitedSocket "FastsseLimitedSocket":
        int fd
        int limit
        int refuse_every
        int[2] calls
    ctypedef void (*any_callback "fastsse_callback")()
    ctypedef int (*passphrase_callback "fastsse_passphrase_callback")(char*, int, int, void*)
    ctypedef int (*alpn_callback "fastsse_alpn_callback")(
        SSL*, const unsigned char**, unsigned char*, const unsigned char*, unsigned int, void*
        ) noexcept nogil

    ctypedef void (*keylog_callback "fastsse_keylog_callback")(const SSL*, const char*) noexcept nogil
    ctypedef long (*bio_callback "fastsse_bio_callback")(
        BIO*, int, const char*, size_t, int, long, int, size_t*) noexcept nogil

    const char* CIPHERS "FASTSSE_CIPHERS"
    const char* HTTP_1_1 "FASTSSE_HTTP_1_1"
    const char* openssl_load "fastsse_openssl_load" ()
    int use_limited_socket "fastsse_use_limited_socket" (SSL* ssl, LimitedSocket* end)
    int64_t not_after_s "fastsse_not_after_s" (X509* certificate)
    int no_passphrase "fastsse_no_passphrase" (char* into, int size, int writes, void* data)

    const void* TLS_server_method "fastsse_openssl.TLS_server_method" ()
    SSL_CTX* SSL_CTX_new "fastsse_openssl.SSL_CTX_new" (const void* method)
    void SSL_CTX_free "fastsse_openssl.SSL_CTX_free" (SSL_CTX* context)
    long SSL_CTX_ctrl "fastsse_openssl.SSL_CTX_ctrl" (
        SSL_CTX* context, int command, long number, void* pointer)
    long SSL_CTX_callback_ctrl "fastsse_openssl.SSL_CTX_callback_ctrl" (
        SSL_CTX* context, int command, any_callback callback)
    uint64_t SSL_CTX_set_options "fastsse_openssl.SSL_CTX_set_options" (
        SSL_CTX* context, uint64_t options)
    int SSL_CTX_set_num_tickets "fastsse_openssl.SSL_CTX_set_num_tickets" (
        SSL_CTX* context, size_t count)
    int SSL_CTX_set_cipher_list "fastsse_openssl.SSL_CTX_set_cipher_list" (
        SSL_CTX* context, const char* ciphers)
    int SSL_CTX_set_session_id_context "fastsse_openssl.SSL_CTX_set_session_id_context" (
        SSL_CTX* context, const unsigned char* id, unsigned int size)
    void SSL_CTX_set_default_passwd_cb "fastsse_openssl.SSL_CTX_set_default_passwd_cb" (
        SSL_CTX* context, passphrase_callback callback)
    int SSL_CTX_use_certificate_chain_file "fastsse_openssl.SSL_CTX_use_certificate_chain_file" (
        SSL_CTX* context, const char* path)
    int SSL_CTX_use_PrivateKey_file "fastsse_openssl.SSL_CTX_use_PrivateKey_file" (
        SSL_CTX* context, const char* path, int kind)
    int SSL_CTX_check_private_key "fastsse_openssl.SSL_CTX_check_private_key" (
        const SSL_CTX* context)
    X509* SSL_CTX_get0_certificate "fastsse_openssl.SSL_CTX_get0_certificate" (
        const SSL_CTX* context)
    void SSL_CTX_set_alpn_select_cb "fastsse_openssl.SSL_CTX_set_alpn_select_cb" (
        SSL_CTX* context, alpn_callback callback, void* argument)
    SSL* SSL_new "fastsse_openssl.SSL_new" (SSL_CTX* context)
    void SSL_free "fastsse_openssl.SSL_free" (SSL* ssl)
    int SSL_set_fd "fastsse_openssl.SSL_set_fd" (SSL* ssl, int fd)
    void SSL_set_accept_state "fastsse_openssl.SSL_set_accept_state" (SSL* ssl)
    int SSL_do_handshake "fastsse_openssl.SSL_do_handshake" (SSL* ssl)
    int SSL_read "fastsse_openssl.SSL_read" (SSL* ssl, void* into, int limit)
    int SSL_write "fastsse_openssl.SSL_write" (SSL* ssl, const void* bytes, int size)
    int SSL_shutdown "fastsse_openssl.SSL_shutdown" (SSL* ssl)
    int SSL_get_error "fastsse_openssl.SSL_get_error" (const SSL* ssl, int result)
    int SSL_session_reused "fastsse_openssl.SSL_session_reused" (const SSL* ssl)
    SSL_CTX* SSL_set_SSL_CTX "fastsse_openssl.SSL_set_SSL_CTX" (SSL* ssl, SSL_CTX* context)
    const char* SSL_get_servername "fastsse_openssl.SSL_get_servername" (const SSL* ssl, int kind)
    void SSL_CTX_set_keylog_callback "fastsse_openssl.SSL_CTX_set_keylog_callback" (
        SSL_CTX* context, keylog_callback callback)
    BIO* SSL_get_wbio "fastsse_openssl.SSL_get_wbio" (const SSL* ssl)
    int SSL_set_ex_data "fastsse_openssl.SSL_set_ex_data" (SSL* ssl, int index, void* data)
    void* SSL_get_ex_data "fastsse_openssl.SSL_get_ex_data" (const SSL* ssl, int index)
    int SSL_version "fastsse_openssl.SSL_version" (const SSL* ssl)
    int SSL_want "fastsse_openssl.SSL_want" (const SSL* ssl)
    int SSL_has_pending "fastsse_openssl.SSL_has_pending" (const SSL* ssl)
    const void* SSL_get_current_cipher "fastsse_openssl.SSL_get_current_cipher" (const SSL* ssl)
    uint16_t SSL_CIPHER_get_protocol_id "fastsse_openssl.SSL_CIPHER_get_protocol_id" (
        const void* cipher)
    const void* SSL_get_session "fastsse_openssl.SSL_get_session" (const SSL* ssl)
    uint8_t SSL_SESSION_get_max_fragment_length \
        "fastsse_openssl.SSL_SESSION_get_max_fragment_length" (const void* session)
    void BIO_set_callback_ex "fastsse_openssl.BIO_set_callback_ex" (
        BIO* bio, bio_callback callback)
    void BIO_set_callback_arg "fastsse_openssl.BIO_set_callback_arg" (BIO* bio, char* argument)
    char* BIO_get_callback_arg "fastsse_openssl.BIO_get_callback_arg" (const BIO* bio)
    void ERR_clear_error "fastsse_openssl.ERR_clear_error" ()
    unsigned long ERR_get_error "fastsse_openssl.ERR_get_error" ()
    const char* ERR_reason_error_string "fastsse_openssl.ERR_reason_error_string" (
        unsigned long code)
    const char* OpenSSL_version "fastsse_openssl.OpenSSL_version" (int kind)
    int X509_check_host "fastsse_openssl.X509_check_host" (
        X509* certificate, const char* name, size_t size, unsigned int flags, char** peer)

cdef enum:
    CTRL_MODE = 33
    CTRL_SET_SESS_CACHE_MODE = 44
    CTRL_SET_TLSEXT_SERVERNAME_CB = 53
    CTRL_SET_TLSEXT_SERVERNAME_ARG = 54
    CTRL_SET_TLSEXT_TICKET_KEYS = 59
    CTRL_SET_MIN_PROTO_VERSION = 123
    TLS_1_2 = 0x0303
    TLS_1_3 = 0x0304
    MODE_ENABLE_PARTIAL_WRITE = 1
    MODE_ACCEPT_MOVING_WRITE_BUFFER = 2
    MODE_RELEASE_BUFFERS = 16
    OP_IGNORE_UNEXPECTED_EOF = 1 << 7
    OP_NO_COMPRESSION = 1 << 17
    OP_PRIORITIZE_CHACHA = 1 << 21
    OP_CIPHER_SERVER_PREFERENCE = 1 << 22
    OP_NO_RENEGOTIATION = 1 << 30
    ERROR_SSL = 1
    ERROR_WANT_READ = 2
    ERROR_WANT_WRITE = 3
    ERROR_ZERO_RETURN = 6
    BIO_WROTE = 0x83           # BIO_CB_WRITE | BIO_CB_RETURN
    WANTS_TO_WRITE = 2         # SSL_WRITING
    AES_128_GCM_SHA256 = 0x1301
    AES_256_GCM_SHA384 = 0x1302
    EXT_OK = 0
    EXT_ALERT_FATAL = 2
    EXT_NOACK = 3
    FILE_PEM = 1
