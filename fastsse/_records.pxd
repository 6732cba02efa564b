from fastsse._core cimport Frame
from fastsse.native.place cimport Place


# An entry as a record, of its parts. Raises ValueError as `pack_entry`.
cdef bytes pack_frame(Place place, tuple topics, bytes own_id, Frame frame, extras)
