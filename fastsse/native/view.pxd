# A view: which events a channel is sent, and in which form. It never changes; channels and the
# pages of replays share it.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset

from fastsse.native.facts cimport Mask
from fastsse.native.fields cimport text_equals, type_of
from fastsse.native.filter cimport Filter, evaluate, filter_drop
from fastsse.native.frame cimport FrameData, Text, is_notice
from fastsse.native.look cimport Look, envelope_of, event_of
from fastsse.native.memory cimport alloc, release
from fastsse.native.os cimport add_u32
from fastsse.native.value cimport V_BOOL, V_ERROR, Value

cdef enum Verdict:
    PASSES_OVER                # the event is not sent
    SENDS
    SENDS_LAST                 # the event is sent, and the stream ends after it


cdef enum Mark:                # how a stream's id moves past events left out, see `mark`
    NO_MARK
    BLOCK_MARK                 # an `id:` line and a blank line
    LINE_MARK                  # an `id:` line alone
    DATA_MARK                  # an event with empty data


cdef struct View:
    uint32_t refs              # atomic: the loop's object, and channels
    size_t size                # of the allocation
    uint8_t has_envelope
    uint8_t has_notices        # it takes control entries, too
    uint8_t mark               # Mark
    uint32_t interval_ms       # of the rate; 0: none
    uint32_t type_count        # 0: every type
    uint32_t until_count
    Text until_data            # absent: none
    Filter* filter             # NULL: none
    # the types and the types of `until` follow as Texts, then the bytes of all


cdef inline Text* view_types(View* view) noexcept nogil:
    return <Text*>(<char*>view + sizeof(View))


cdef inline char* view_bytes(View* view) noexcept nogil:
    return <char*>view_types(view) + (view.type_count + view.until_count) * sizeof(Text)


cdef inline View* view_new(uint32_t types, uint32_t untils, size_t bytes) noexcept nogil:
    """Allocates a view with room for its texts, which are not written yet; one reference."""
    cdef size_t size = sizeof(View) + (types + untils) * sizeof(Text) + bytes
    cdef View* view = <View*>alloc(size)
    memset(view, 0, size)
    view.refs = 1
    view.size = size
    view.type_count = types
    view.until_count = untils
    return view


cdef inline View* view_keep(View* view) noexcept nogil:
    if view is not NULL:
        add_u32(&view.refs, 1)
    return view


cdef inline void view_drop(View* view) noexcept nogil:
    if view is not NULL and add_u32(&view.refs, -1) == 0:
        filter_drop(view.filter)
        release(view, view.size)


cdef inline bint is_one_of(Text text, Text* texts, uint32_t count) noexcept nogil:
    cdef uint32_t index
    for index in range(count):
        if text_equals(text, texts[index]):
            return True
    return False


cdef inline Text named_type(FrameData* frame) noexcept nogil:
    """The event's type as a script sees it: `message` by default."""
    cdef Text type = type_of(frame)
    if type.at is NULL:
        type.at = b"message"
        type.size = 7
    return type


cdef inline bint is_last(View* view, Look* look) noexcept nogil:
    """Whether the stream ends after the event."""
    if view.until_count and is_one_of(
            named_type(look.frame), view_types(view) + view.type_count, view.until_count):
        return True
    return view.until_data.at is not NULL and text_equals(event_of(look).data, view.until_data)


cdef inline bint passes(Filter* filter, Look* look, Mask* shown) noexcept nogil:
    """Whether a filter lets the event through; an error does not, and is counted."""
    cdef Value value = evaluate(filter, look, shown)
    look.filter_errors += value.kind == V_ERROR
    return value.kind == V_BOOL and value.whole


cdef inline Verdict judge_event(View* view, Look* look, Mask* shown) noexcept nogil:
    """Whether the event is sent, and whether the stream ends after it. A control entry passes every
    filter if the view takes control entries. An event that ends the stream is sent even if the
    filter or the types exclude it."""
    if look.frame.events == 0:
        return SENDS if view.has_notices and is_notice(look.frame) else PASSES_OVER
    if is_last(view, look):
        return SENDS_LAST
    if view.type_count and not is_one_of(
            named_type(look.frame), view_types(view), view.type_count):
        return PASSES_OVER
    return SENDS if view.filter is NULL or passes(view.filter, look, shown) else PASSES_OVER


cdef inline FrameData* form_of(View* view, Look* look, Mask shown) noexcept nogil:
    """The event in the form of the view. The reference stays that of the look or of the caller."""
    return envelope_of(look, shown) if view.has_envelope and look.frame.events else look.frame
