# A look at one event, shared by all views that may send it. Each field is read once. A *twin* is the
# same event with an envelope; it is made once for each set of topics that it shows.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy

from fastsse.native.buffer cimport (
    Buffer, buffer_clear, buffer_free, buffer_put_byte, buffer_put_bytes, buffer_room)
from fastsse.native.facts cimport Facts, Mask, facts_topics, has_topic, masks_equal
from fastsse.native.fields cimport EventText, read_event, text_at
from fastsse.native.frame cimport (
    BODY_BYTES_MAX, FrameData, Text, frame_body, frame_drop, frame_keep, frame_new)
from fastsse.native.json cimport (
    Json, json_free, json_read, put_json_line, put_json_string)
from fastsse.native.value cimport Value

cdef enum:
    FIELDS_MAX = 256           # values of paths that are cached for one event
    TWINS_MAX = 8              # cached for one event; a new one then replaces the oldest
    DATA_JSON = 1              # `FrameData.data_kind` of JSON

cdef enum Reading:             # of a text as JSON
    UNREAD
    IS_JSON
    NOT_JSON


cdef struct Field:             # the value of a path, see `filter`
    uint64_t serial            # of the event that it is of
    const void* path           # lives while that event is looked at
    Value value


cdef struct Twin:
    FrameData* frame
    Mask shown


cdef struct Look:
    FrameData* frame           # borrowed
    Facts* facts               # borrowed; NULL: unknown
    uint64_t serial            # of the event; cached values with another one are invalid
    uint8_t is_read
    uint8_t data_kind
    uint8_t data_state         # Reading
    uint8_t meta_state
    uint32_t twin_count
    uint64_t twins_made
    uint64_t filter_errors
    EventText event
    Json data
    Json meta
    Buffer output
    Twin[TWINS_MAX] twins
    Field[FIELDS_MAX] fields


cdef inline void look_at_event(Look* look, FrameData* frame, Facts* facts) noexcept nogil:
    """Begins with another event."""
    look_end(look)
    look.frame = frame
    look.facts = facts
    look.data_kind = frame.data_kind
    look.serial += 1
    look.is_read = False
    look.data_state = look.meta_state = UNREAD


cdef inline void look_end(Look* look) noexcept nogil:
    """Drops the twins; nothing of the event is held from here on."""
    cdef uint32_t index
    for index in range(min(look.twin_count, <uint32_t>TWINS_MAX)):
        frame_drop(look.twins[index].frame)
    look.twin_count = 0
    look.frame = NULL


cdef inline void look_free(Look* look) noexcept nogil:
    look_end(look)
    buffer_free(&look.event.joined)
    buffer_free(&look.output)
    json_free(&look.data)
    json_free(&look.meta)


cdef inline EventText* event_of(Look* look) noexcept nogil:
    """The event's fields. The first call reads them."""
    if not look.is_read:
        read_event(look.frame, &look.event)
        look.is_read = True
    return &look.event


cdef inline Json* data_of(Look* look) noexcept nogil:
    """The data as JSON; NULL if it is not JSON."""
    if look.data_state == UNREAD:
        look.data_state = IS_JSON if json_read(&look.data, event_of(look).data) else NOT_JSON
    return &look.data if look.data_state == IS_JSON else NULL


cdef inline Json* meta_of(Look* look) noexcept nogil:
    """The meta as JSON; NULL when there is none."""
    if look.meta_state == UNREAD:
        look.meta_state = NOT_JSON
        if look.facts is not NULL and look.facts.meta.at is not NULL \
                and json_read(&look.meta, look.facts.meta):
            look.meta_state = IS_JSON
    return &look.meta if look.meta_state == IS_JSON else NULL


# ---- the envelope ------------------------------------------------------------------------------

cdef inline uint32_t count_shown(Look* look, Mask* shown) noexcept nogil:
    cdef uint32_t count = 0
    cdef uint32_t index
    for index in range(look.facts.topic_count if look.facts is not NULL else 0):
        count += has_topic(shown, index)
    return count


cdef inline void put_topics(Look* look, Mask* shown) noexcept nogil:
    """The topics that are shown: one as text, several as a list, none as null."""
    cdef Buffer* to = &look.output
    cdef uint32_t count = count_shown(look, shown)
    cdef char before = c'['
    cdef uint32_t index
    if count == 0:
        buffer_put_bytes(to, b"null", 4)
        return
    for index in range(look.facts.topic_count):
        if has_topic(shown, index):
            if count > 1:
                buffer_put_byte(to, before)
            put_json_string(to, facts_topics(look.facts)[index])
            before = c','
    if count > 1:
        buffer_put_byte(to, c']')


cdef inline void put_text_or_null(Buffer* to, Text text) noexcept nogil:
    if text.at is NULL:
        buffer_put_bytes(to, b"null", 4)
    else:
        put_json_string(to, text)


cdef inline void put_envelope(Look* look, Mask* shown) noexcept nogil:
    """`{"topic":…,"id":…,"event":…,"data":…,"meta":…,"time":…}` into the output."""
    cdef Buffer* to = &look.output
    cdef EventText* event = event_of(look)
    buffer_put_bytes(to, b"{\"topic\":", 9)
    put_topics(look, shown)
    buffer_put_bytes(to, b",\"id\":", 6)
    put_text_or_null(to, event.id)
    buffer_put_bytes(to, b",\"event\":", 9)
    put_text_or_null(to, event.type)
    buffer_put_bytes(to, b",\"data\":", 8)
    if look.data_kind == DATA_JSON and data_of(look) is not NULL:
        put_json_line(to, event.data)
    else:
        put_json_string(to, event.data)
    buffer_put_bytes(to, b",\"meta\":", 8)
    if meta_of(look) is not NULL:
        put_json_line(to, look.facts.meta)
    else:
        buffer_put_bytes(to, b"null", 4)
    buffer_room(to, 40)
    to.size += snprintf(
        to.at + to.size, 40, b",\"time\":%llu}", <unsigned long long>look.frame.time_ms)


cdef inline FrameData* envelope_frame(Look* look, Mask* shown) noexcept nogil:
    """The event with an envelope as its data; one reference. A frame that is no event, or would be
    longer than BODY_BYTES_MAX, is returned unchanged."""
    cdef EventText* event = event_of(look)
    cdef FrameData* twin
    cdef size_t size
    cdef char* at
    if event.data.at is NULL:
        return frame_keep(look.frame)
    buffer_clear(&look.output)
    put_envelope(look, shown)
    size = event.head.size + 6 + look.output.size + 2
    if size > BODY_BYTES_MAX:
        return frame_keep(look.frame)
    twin = frame_new(size, True)
    at = frame_body(twin)
    memcpy(at, event.head.at, event.head.size)
    at += event.head.size
    memcpy(at, b"data: ", 6)
    memcpy(at + 6, look.output.at, look.output.size)
    memcpy(at + 6 + look.output.size, b"\n\n", 2)
    twin.is_private = look.frame.is_private
    twin.data_kind = DATA_JSON
    twin.events = look.frame.events
    twin.position_ms = look.frame.position_ms
    twin.position_n = look.frame.position_n
    twin.time_ms = look.frame.time_ms
    twin.expires_ms = look.frame.expires_ms
    look.twins_made += 1
    return twin


cdef inline FrameData* envelope_of(Look* look, Mask shown) noexcept nogil:
    """The twin that shows these topics. The first call makes it; the look owns it."""
    cdef FrameData* kept = find_envelope(look, shown)
    cdef Twin* twin
    if kept is not NULL:
        return kept
    twin = &look.twins[look.twin_count % TWINS_MAX]
    if look.twin_count >= TWINS_MAX:
        frame_drop(twin.frame)
    twin.shown = shown
    twin.frame = envelope_frame(look, &twin.shown)
    look.twin_count += 1
    return twin.frame


cdef inline FrameData* find_envelope(Look* look, Mask shown) noexcept nogil:
    """The twin that shows these topics, if it is cached; else NULL."""
    cdef uint32_t index
    for index in range(min(look.twin_count, <uint32_t>TWINS_MAX)):
        if masks_equal(look.twins[index].shown, shown):
            return look.twins[index].frame
    return NULL
