# AES-GCM and HMAC of OpenSSL 3, found by `dlopen` when a key of TLS records is first needed. The
# numbers are those of OpenSSL's headers. A cipher belongs to one thread.

cdef extern from * nogil:
    """
    #ifndef FASTSSE_AEAD
    #define FASTSSE_AEAD
    #include <dlfcn.h>
    #include <stddef.h>

    typedef struct evp_cipher_ctx_st EVP_CIPHER_CTX;

    #define FASTSSE_CRYPTO_FUNCTIONS(F) \\
        F(EVP_CIPHER_CTX *, EVP_CIPHER_CTX_new, (void)) \\
        F(void, EVP_CIPHER_CTX_free, (EVP_CIPHER_CTX *)) \\
        F(int, EVP_CIPHER_CTX_ctrl, (EVP_CIPHER_CTX *, int, int, void *)) \\
        F(int, EVP_CipherInit_ex, (EVP_CIPHER_CTX *, const void *, void *, \\
                                   const unsigned char *, const unsigned char *, int)) \\
        F(int, EVP_CipherUpdate, (EVP_CIPHER_CTX *, unsigned char *, int *, \\
                                  const unsigned char *, int)) \\
        F(int, EVP_CipherFinal_ex, (EVP_CIPHER_CTX *, unsigned char *, int *)) \\
        F(const void *, EVP_aes_128_gcm, (void)) \\
        F(const void *, EVP_aes_256_gcm, (void)) \\
        F(const void *, EVP_sha256, (void)) \\
        F(const void *, EVP_sha384, (void)) \\
        F(unsigned char *, HMAC, (const void *, const void *, int, const unsigned char *, \\
                                  size_t, unsigned char *, unsigned *)) \\
        F(void, OPENSSL_cleanse, (void *, size_t))

    static struct {
    #define FASTSSE_DECLARE(result, name, arguments) result (*name) arguments;
        FASTSSE_CRYPTO_FUNCTIONS(FASTSSE_DECLARE)
    #undef FASTSSE_DECLARE
    } fastsse_crypto;

    /* NULL when every function was found, else what is missing. The library is never unloaded. */
    static const char *fastsse_crypto_load(void) {
        static void *library = NULL;
        if (library) return NULL;
        void *opened = dlopen("libcrypto.so.3", RTLD_NOW | RTLD_LOCAL);
        if (!opened) return "libcrypto.so.3";
    #define FASTSSE_FIND(result, name, arguments) \\
        *(void **)&fastsse_crypto.name = dlsym(opened, #name); \\
        if (!fastsse_crypto.name) { dlclose(opened); return #name; }
        FASTSSE_CRYPTO_FUNCTIONS(FASTSSE_FIND)
    #undef FASTSSE_FIND
        library = opened;
        return NULL;
    }

    /* A context of AES-GCM without a key; NULL when OpenSSL refuses. */
    static EVP_CIPHER_CTX *fastsse_gcm_new(int is_256, int seals) {
        EVP_CIPHER_CTX *context = fastsse_crypto.EVP_CIPHER_CTX_new();
        const void *kind = is_256 ? fastsse_crypto.EVP_aes_256_gcm()
                                  : fastsse_crypto.EVP_aes_128_gcm();
        if (!context) return NULL;
        if (fastsse_crypto.EVP_CipherInit_ex(context, kind, NULL, NULL, NULL, seals) == 1)
            return context;
        fastsse_crypto.EVP_CIPHER_CTX_free(context);
        return NULL;
    }

    /* Encrypts `data` in place, or decrypts it, under a key and a nonce of 12 bytes. `tag`, of 16
       bytes, is written, or checked. 1: it succeeded. */
    static int fastsse_gcm(EVP_CIPHER_CTX *context, int seals, const unsigned char *key,
                           const unsigned char *nonce, const unsigned char *head, int head_size,
                           unsigned char *data, int size, unsigned char *tag) {
        int done;
        if (fastsse_crypto.EVP_CipherInit_ex(context, NULL, NULL, key, nonce, seals) != 1
            || fastsse_crypto.EVP_CipherUpdate(context, NULL, &done, head, head_size) != 1
            || fastsse_crypto.EVP_CipherUpdate(context, data, &done, data, size) != 1
            || done != size) return 0;
        if (!seals && fastsse_crypto.EVP_CIPHER_CTX_ctrl(context, 0x11, 16, tag) != 1) return 0;
        if (fastsse_crypto.EVP_CipherFinal_ex(context, data + size, &done) != 1) return 0;
        return !seals || fastsse_crypto.EVP_CIPHER_CTX_ctrl(context, 0x10, 16, tag) == 1;
    }

    /* Puts a key of zeros in the place of the last one. */
    static void fastsse_gcm_forget(EVP_CIPHER_CTX *context) {
        static const unsigned char zeros[32];
        fastsse_crypto.EVP_CipherInit_ex(context, NULL, NULL, zeros, zeros, 1);
    }

    /* HMAC with SHA-256, or with SHA-384. 1: it succeeded. */
    static int fastsse_hmac(int is_384, const unsigned char *key, int key_size,
                            const unsigned char *data, size_t size, unsigned char *digest) {
        unsigned length = 0;
        const void *hash = is_384 ? fastsse_crypto.EVP_sha384() : fastsse_crypto.EVP_sha256();
        return fastsse_crypto.HMAC(hash, key, key_size, data, size, digest, &length) != NULL;
    }
    #endif
    """
    ctypedef struct GcmContext "EVP_CIPHER_CTX":
        pass
    const char* crypto_load "fastsse_crypto_load" ()
    GcmContext* gcm_new "fastsse_gcm_new" (bint is_256, bint seals)
    bint gcm "fastsse_gcm" (
        GcmContext* context, bint seals, const unsigned char* key, const unsigned char* nonce,
        const unsigned char* head, int head_size, unsigned char* data, int size,
        unsigned char* tag)
    void gcm_forget "fastsse_gcm_forget" (GcmContext* context)
    bint hmac "fastsse_hmac" (
        bint is_384, const unsigned char* key, int key_size, const unsigned char* data,
        size_t size, unsigned char* digest)
    void gcm_free "fastsse_crypto.EVP_CIPHER_CTX_free" (GcmContext* context)
    void wipe "fastsse_crypto.OPENSSL_cleanse" (void* at, size_t size)
