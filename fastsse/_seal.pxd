# What the door hands to the sender when a stream's records are no longer OpenSSL's: the client's
# socket and the keys. It makes no native allocation, so nothing is freed in another module.

cimport cython
from fastsse.native.record_seal cimport Seal


@cython.final
cdef class SealedSocket:
    cdef Seal seal
    cdef int net_fd            # the client's socket; -1 after it was given on
    cdef int pair_fd           # the door's end of the pair, open until the sender has changed over
