# Values that filters compute with, and how they compare. An error is a value too, so that `||` and
# `&&` give the same result whichever side has the error (as in CEL).

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcmp, memcpy

from fastsse.native.frame cimport Text
from fastsse.native.json cimport (
    JSON_FALSE, JSON_LIST, JSON_NULL, JSON_NUMBER, JSON_OBJECT, JSON_STRING, JSON_TRUE, Json, Place,
    string_text)

cdef extern from * nogil:
    """
    #include <locale.h>
    #include <stdlib.h>
    #include <string.h>
    static locale_t fastsse_plain_locale;
    static void fastsse_numbers_begin(void) {
        fastsse_plain_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    }
    static double fastsse_double_of(const char *text) {
        return fastsse_plain_locale ? strtod_l(text, NULL, fastsse_plain_locale) : strtod(text, NULL);
    }
    static int fastsse_order_numbers(int64_t whole, double real) {
        long double left = whole;
        return left < real ? -1 : left > real;
    }
    static const void *fastsse_find_bytes(const void *in, size_t size, const void *what, size_t length) {
        return memmem(in, size, what, length);
    }
    """
    void numbers_begin "fastsse_numbers_begin"()
    double double_of "fastsse_double_of"(const char* text)
    int order_whole_and_real "fastsse_order_numbers"(int64_t whole, double real)
    const void* find_bytes "fastsse_find_bytes"(
        const void* place, size_t size, const void* what, size_t length)

cdef enum:
    NUMBER_BYTES_MAX = 63      # a longer number is an error
    WHOLE_DIGITS_MAX = 18      # any integer of this length fits into 64 bits

cdef enum ValueKind:
    V_ERROR
    V_NULL
    V_BOOL
    V_WHOLE
    V_REAL
    V_TEXT
    V_LIST
    V_MAP
    V_TOPICS                   # the shown topics of an event that has several


cdef struct Value:
    uint8_t kind
    uint32_t place             # of a list or map, in its document
    int64_t whole              # and a bool's 0 or 1
    double real
    Text text
    Json* json

cdef enum Order:
    LESS = -1
    SAME = 0
    MORE = 1
    NO_ORDER = 2


cdef inline Value value_of(uint8_t kind) noexcept nogil:
    cdef Value value
    value.kind = kind
    value.whole = 0
    value.real = 0
    value.place = 0
    value.text.at = NULL
    value.text.size = 0
    value.json = NULL
    return value


cdef inline Value truth(bint is_true) noexcept nogil:
    cdef Value value = value_of(V_BOOL)
    value.whole = 1 if is_true else 0
    return value


cdef inline Value text_value(Text text) noexcept nogil:
    cdef Value value = value_of(V_TEXT)
    value.text = text
    return value


cdef inline Value whole_value(int64_t whole) noexcept nogil:
    cdef Value value = value_of(V_WHOLE)
    value.whole = whole
    return value


cdef inline Value real_value(double real) noexcept nogil:
    cdef Value value = value_of(V_REAL)
    value.real = real
    return value


cdef inline Value number_value(const char* at, size_t size) noexcept nogil:
    """The number that a text is, by JSON's grammar."""
    cdef char[NUMBER_BYTES_MAX + 1] text
    cdef Value value
    cdef size_t index
    cdef bint is_whole = True
    for index in range(size):
        if at[index] == c'.' or at[index] == c'e' or at[index] == c'E':
            is_whole = False
            break
    if is_whole and size <= WHOLE_DIGITS_MAX:
        value = whole_value(0)
        for index in range(1 if at[0] == c'-' else 0, size):
            value.whole = value.whole * 10 + (at[index] - c'0')
        if at[0] == c'-':
            value.whole = -value.whole
        return value
    if size > NUMBER_BYTES_MAX:
        return value_of(V_ERROR)
    memcpy(text, at, size)
    text[size] = 0
    return real_value(double_of(text))


cdef inline Value json_value(Json* json, uint32_t index) noexcept nogil:
    """The value at a place of a document."""
    cdef Place* place = &json.places[index]
    cdef Value value
    if place.kind == JSON_STRING:
        return text_value(string_text(json, place))
    if place.kind == JSON_NUMBER:
        return number_value(place.at, place.size)
    if place.kind == JSON_NULL:
        return value_of(V_NULL)
    if place.kind == JSON_TRUE or place.kind == JSON_FALSE:
        return truth(place.kind == JSON_TRUE)
    value = value_of(V_LIST if place.kind == JSON_LIST else V_MAP)
    value.json = json
    value.place = index
    return value


cdef inline bint is_number(Value* value) noexcept nogil:
    return value.kind == V_WHOLE or value.kind == V_REAL


cdef inline Order order_numbers(Value* left, Value* right) noexcept nogil:
    if left.kind == V_WHOLE and right.kind == V_WHOLE:
        return LESS if left.whole < right.whole else MORE if left.whole > right.whole else SAME
    if left.kind == V_WHOLE:
        return <Order>order_whole_and_real(left.whole, right.real)
    if right.kind == V_WHOLE:
        return <Order>(-order_whole_and_real(right.whole, left.real))
    return LESS if left.real < right.real else MORE if left.real > right.real else SAME


cdef inline Order order_texts(Text left, Text right) noexcept nogil:
    """Compares texts by bytes, which is the order of code points."""
    cdef size_t size = min(left.size, right.size)
    cdef int order = memcmp(left.at, right.at, size) if size else 0
    if order == 0:
        return LESS if left.size < right.size else MORE if left.size > right.size else SAME
    return LESS if order < 0 else MORE


cdef inline Order order_values(Value* left, Value* right) noexcept nogil:
    """Orders two numbers or two texts. Other values have no order."""
    if is_number(left) and is_number(right):
        return order_numbers(left, right)
    if left.kind == V_TEXT and right.kind == V_TEXT:
        return order_texts(left.text, right.text)
    return NO_ORDER


cdef inline Value equals(Value* left, Value* right) noexcept nogil:
    """Values of different kinds are not equal; lists and maps can't be compared."""
    if left.kind == V_ERROR or right.kind == V_ERROR or left.kind >= V_LIST or right.kind >= V_LIST:
        return value_of(V_ERROR)
    if is_number(left) and is_number(right):
        return truth(order_numbers(left, right) == SAME)
    if left.kind != right.kind:
        return truth(False)
    if left.kind == V_TEXT:
        return truth(order_texts(left.text, right.text) == SAME)
    return truth(left.whole == right.whole)
