# Filters: expressions as a list of steps on a small stack. There are no jumps, so each step runs once.
# A value that is missing or can't be compared makes an error, and an error is no match.
# `fastsse/expressions` has the language.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from fastsse.native.facts cimport Mask, facts_topics, has_topic
from fastsse.native.fields cimport text_equals
from fastsse.native.frame cimport Text
from fastsse.native.json cimport JSON_LIST, JSON_OBJECT, Json, string_text
from fastsse.native.look cimport (
    DATA_JSON, FIELDS_MAX, Field, Look, count_shown, data_of, event_of, meta_of)
from fastsse.native.memory cimport release
from fastsse.native.os cimport add_u32
from fastsse.native.value cimport (
    LESS, MORE, NO_ORDER, Order, SAME, V_BOOL, V_ERROR, V_LIST, V_MAP, V_TEXT, V_TOPICS, Value,
    equals, find_bytes, json_value, order_values, text_value, truth, value_of)

cdef enum:
    STACK_MAX = 64             # three for each level of parentheses that the parser allows, and more

cdef enum StepCode:
    FIELD                      # pushes the value of a path
    HAS                        # pushes whether there is one
    CONST                      # pushes a constant
    IN_LIST                    # whether the top is one of a list's constants
    IN                         # whether the second is in the top
    EQUAL
    NOT_EQUAL
    BELOW
    AT_MOST
    ABOVE
    AT_LEAST
    STARTS
    ENDS
    CONTAINS
    AND
    OR
    NOT
    STEP_CODES

cdef enum Root:
    ROOT_DATA
    ROOT_META
    ROOT_EVENT
    ROOT_TOPIC
    ROOTS


cdef struct Segment:
    Text key                   # absent: an index
    uint32_t index


cdef struct Path:
    uint64_t hash
    uint8_t root
    uint32_t segment_count
    Segment* segments
    Text name                  # the same for equal paths only


cdef struct Step:
    uint32_t code
    uint32_t argument


cdef struct Run:               # of constants
    uint32_t first
    uint32_t count


cdef struct Filter:
    uint32_t refs              # atomic
    size_t size                # of the one allocation that holds all of it
    uint32_t step_count
    Step* steps
    Value* constants
    Run* lists
    Path* paths


# ---- values of an event ------------------------------------------------------------------------

cdef inline uint32_t member_at(Json* json, uint32_t at, Text key) noexcept nogil:
    """The place of a member's value; 0 when there is none."""
    cdef uint32_t place = at + 1
    cdef uint32_t behind = json.places[at].behind
    while place < behind:
        if text_equals(string_text(json, &json.places[place]), key):
            return place + 1
        place = json.places[place + 1].behind
    return 0


cdef inline uint32_t element_at(Json* json, uint32_t at, uint32_t index) noexcept nogil:
    cdef uint32_t place = at + 1
    cdef uint32_t behind = json.places[at].behind
    while place < behind:
        if index == 0:
            return place
        index -= 1
        place = json.places[place].behind
    return 0


cdef inline Value follow(Json* json, Path* path) noexcept nogil:
    cdef uint32_t at = 0
    cdef uint32_t index
    cdef Segment* segment
    for index in range(path.segment_count):
        segment = &path.segments[index]
        if segment.key.at is not NULL and json.places[at].kind == JSON_OBJECT:
            at = member_at(json, at, segment.key)
        elif segment.key.at is NULL and json.places[at].kind == JSON_LIST:
            at = element_at(json, at, segment.index)
        else:
            at = 0
        if at == 0:
            return value_of(V_ERROR)
    return json_value(json, at)


cdef inline Value read_field(Look* look, Path* path) noexcept nogil:
    cdef Json* json
    cdef Text type
    if path.root == ROOT_EVENT:
        type = event_of(look).type
        if type.at is NULL:
            type.at = b"message"
            type.size = 7
        return text_value(type)
    if path.root == ROOT_META:
        json = meta_of(look)
    elif path.segment_count == 0 and look.data_kind != DATA_JSON:
        return text_value(event_of(look).data)
    else:
        json = data_of(look)
        if json is NULL and path.segment_count == 0:
            return text_value(event_of(look).data)
    return follow(json, path) if json is not NULL else value_of(V_ERROR)


cdef inline bint is_same_path(Path* left, Path* right) noexcept nogil:
    return left is right or (left.hash == right.hash and text_equals(left.name, right.name))


cdef inline Value field_of(Look* look, Path* path) noexcept nogil:
    """The value of a path: read once for an event, whichever filters ask for it."""
    cdef Field* field = &look.fields[path.hash % FIELDS_MAX]
    if field.serial != look.serial or not is_same_path(<Path*>field.path, path):
        field.serial = look.serial
        field.path = path
        field.value = read_field(look, path)
    return field.value


cdef inline Value topics_of(Look* look, Mask* shown) noexcept nogil:
    return value_of(V_TOPICS if count_shown(look, shown) else V_ERROR)


# ---- steps -------------------------------------------------------------------------------------

cdef inline Value apply_to_texts(uint32_t code, Value* left, Value* right) noexcept nogil:
    cdef Text text = left.text
    cdef Text part = right.text
    if code == EQUAL:
        return equals(left, right)
    if left.kind != V_TEXT or right.kind != V_TEXT:
        return value_of(V_ERROR)
    if code == CONTAINS:
        return truth(part.size == 0
                     or find_bytes(text.at, text.size, part.at, part.size) is not NULL)
    if part.size > text.size:
        return truth(False)
    if code == ENDS:
        text.at += text.size - part.size
    return truth(part.size == 0 or memcmp(text.at, part.at, part.size) == 0)


cdef inline Value apply_to_topics(
        Look* look, Mask* shown, uint32_t code, Value* right) noexcept nogil:
    """Whether a test is true for one of the topics."""
    cdef Value left
    cdef Value result = truth(False)
    cdef uint32_t index
    for index in range(look.facts.topic_count):
        if has_topic(shown, index):
            left = text_value(facts_topics(look.facts)[index])
            result = apply_to_texts(code, &left, right)
            if result.kind == V_ERROR or result.whole:
                return result
    return result


cdef inline Value test_text(
        Look* look, Mask* shown, uint32_t code, Value* left, Value* right) noexcept nogil:
    if left.kind == V_TOPICS:
        return apply_to_topics(look, shown, code, right)
    if code == EQUAL and right.kind == V_TOPICS:
        return apply_to_topics(look, shown, code, left)
    return apply_to_texts(code, left, right)


cdef inline Value negated(Value value) noexcept nogil:
    return truth(not value.whole) if value.kind == V_BOOL else value_of(V_ERROR)


cdef inline Value compare(uint32_t code, Value* left, Value* right) noexcept nogil:
    cdef Order order = order_values(left, right)
    if order == NO_ORDER:
        return value_of(V_ERROR)
    if code == BELOW:
        return truth(order == LESS)
    if code == AT_MOST:
        return truth(order != MORE)
    return truth(order == MORE if code == ABOVE else order != LESS)


cdef inline Value combine(uint32_t code, Value* left, Value* right) noexcept nogil:
    """`&&` and `||`: a side that decides the result is enough, even if the other is an error."""
    cdef bint decides = code == OR
    if (left.kind == V_BOOL and left.whole == decides) \
            or (right.kind == V_BOOL and right.whole == decides):
        return truth(decides)
    if left.kind != V_BOOL or right.kind != V_BOOL:
        return value_of(V_ERROR)
    return truth(not decides)


cdef inline Value is_in_list(
        Look* look, Mask* shown, Filter* filter, Run run, Value* value) noexcept nogil:
    cdef Value found = truth(False)
    cdef uint32_t index
    for index in range(run.count):
        found = test_text(look, shown, EQUAL, value, &filter.constants[run.first + index])
        if found.kind == V_ERROR or found.whole:
            return found
    return found if value.kind != V_ERROR else value_of(V_ERROR)


cdef inline Value is_in(Look* look, Mask* shown, Value* value, Value* place) noexcept nogil:
    """Whether a value is an element of a list, a name of a map, or one of several topics."""
    cdef Json* json = place.json
    cdef Value element
    cdef uint32_t at
    if value.kind == V_ERROR or value.kind >= V_LIST:
        return value_of(V_ERROR)
    if place.kind == V_TOPICS:
        return apply_to_topics(look, shown, EQUAL, value)
    if place.kind == V_MAP and value.kind == V_TEXT:
        return truth(member_at(json, place.place, value.text) != 0)
    if place.kind != V_LIST:
        return value_of(V_ERROR)
    at = place.place + 1
    while at < json.places[place.place].behind:
        element = json_value(json, at)
        element = equals(value, &element)
        if element.kind == V_BOOL and element.whole:
            return element
        at = json.places[at].behind
    return truth(False)


cdef inline Value push_of(Look* look, Mask* shown, Filter* filter, Step step) noexcept nogil:
    cdef Path* path
    if step.code == CONST:
        return filter.constants[step.argument]
    path = &filter.paths[step.argument]
    if path.root == ROOT_TOPIC:
        return topics_of(look, shown)
    if step.code == FIELD:
        return field_of(look, path)
    return truth(field_of(look, path).kind != V_ERROR)


cdef inline Value result_of(
        Look* look, Mask* shown, uint32_t code, Value* left, Value* right) noexcept nogil:
    """A step of two values."""
    if code == EQUAL or STARTS <= code <= CONTAINS:
        return test_text(look, shown, code, left, right)
    if code == NOT_EQUAL:
        return negated(test_text(look, shown, EQUAL, left, right))
    if code == IN:
        return is_in(look, shown, left, right)
    if code == AND or code == OR:
        return combine(code, left, right)
    return compare(code, left, right)


cdef inline Value evaluate(Filter* filter, Look* look, Mask* shown) noexcept nogil:
    """The filter's value for the event that is looked at: true, false, or an error. What the steps
    refer to was checked when the filter was made (`filter_check`)."""
    cdef Value[STACK_MAX] stack
    cdef uint32_t top = 0
    cdef uint32_t index
    cdef Step step
    for index in range(filter.step_count):
        step = filter.steps[index]
        if step.code <= CONST:
            stack[top] = push_of(look, shown, filter, step)
            top += 1
        elif step.code == IN_LIST:
            stack[top - 1] = is_in_list(
                look, shown, filter, filter.lists[step.argument], &stack[top - 1])
        elif step.code == NOT:
            stack[top - 1] = negated(stack[top - 1])
        else:
            top -= 1
            stack[top - 1] = result_of(look, shown, step.code, &stack[top - 1], &stack[top])
    return stack[0] if stack[0].kind == V_BOOL else value_of(V_ERROR)


cdef inline int stack_change(uint32_t code) noexcept nogil:
    """By how many values a step changes the stack."""
    if code <= CONST:
        return 1
    return 0 if code == IN_LIST or code == NOT else -1


cdef inline bint filter_check(
        Filter* filter, uint32_t constants, uint32_t lists, uint32_t paths) noexcept nogil:
    """Whether the steps stay within the stack and what they refer to, and leave one value."""
    cdef uint32_t depth = 0
    cdef uint32_t index
    cdef Step step
    for index in range(filter.step_count):
        step = filter.steps[index]
        if step.code >= STEP_CODES:
            return False
        if step.argument >= (paths if step.code <= HAS else constants if step.code == CONST
                             else lists if step.code == IN_LIST else 1):
            return False
        if step.code > CONST and depth < (1 if stack_change(step.code) == 0 else 2):
            return False
        depth += stack_change(step.code)
        if depth > STACK_MAX:
            return False
    for index in range(lists):
        if filter.lists[index].first + <uint64_t>filter.lists[index].count > constants:
            return False
    return depth == 1


cdef inline Filter* filter_keep(Filter* filter) noexcept nogil:
    if filter is not NULL:
        add_u32(&filter.refs, 1)
    return filter


cdef inline void filter_drop(Filter* filter) noexcept nogil:
    if filter is not NULL and add_u32(&filter.refs, -1) == 0:
        release(filter, filter.size)
