# Hexadecimal digits, as requests, JSON, chunks and OpenSSL's lines have them.


cdef inline int hex_digit(char digit) noexcept nogil:
    """The value of a digit in either case; -1 if it is none."""
    if c'0' <= digit <= c'9':
        return digit - c'0'
    digit |= 0x20              # lower case; no other byte becomes a letter from a to f
    return digit - c'a' + 10 if c'a' <= digit <= c'f' else -1
