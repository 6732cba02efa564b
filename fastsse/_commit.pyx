"""The way of a batch that is committed within one call: checked, put in order, encoded, kept, passed
on. Loop thread only.

`hub/hub.py:Hub` and `backbone/memory.py:MemoryBackbone` are the subclasses; they have what most
batches do not need. A function of Python between two system calls costs about as much as all of
this for one event.
"""

from libc.stdint cimport int64_t, uint64_t

from fastsse._batch cimport Entries, EventBatch, KeyedBatch, encode_batch_now, is_plain_batch
from fastsse._core cimport Frame, bytes_held, commands_pending
from fastsse._positions cimport Clock

from fastsse._core import QUEUE_MAX
from fastsse.entries import encode_entries, sizes


cdef class MemoryLog:
    cdef public object _deliver, states, streams
    cdef public Clock _clock
    cdef object lead

    def __init__(self, Clock clock not None, lead not None):
        self._clock, self.lead = clock, lead

    def append_now(self, batch not None):
        cdef EventBatch events
        if self._deliver is None or self.states is None:
            return None
        if type(batch) is EventBatch:
            events = batch
            if is_plain_batch(events) and not self.streams.rows and not self.states.ended_count:
                return self.hand_on(events, self._clock.take_all(len(events.data)))
        return self._append_asked(batch)

    cpdef object hand_on(self, events, positions):
        cdef Entries entries
        cdef Frame last
        if type(events) is EventBatch:
            entries = encode_batch_now(positions, events, self._clock.time_ms)
        else:
            entries = encode_entries(positions, events, self._clock.time_ms)
        last = entries.frames[len(entries.frames) - 1]
        lead_ms = <int64_t>(last.data.position_ms - last.data.time_ms)
        if lead_ms or self.lead.is_ahead:
            self.lead.note(lead_ms)
        self._deliver(entries)
        return positions


cdef class PublishPath:
    cdef public object interceptors, on_entries, on_content, on_reached
    cdef public uint64_t events_published, entries_seen
    cdef public bint refuses
    # Whether publishes are judged by rate, or changed by a rule; whether rules restrict them.
    cdef public bint _is_watched, _is_restricted
    cdef public bint _is_stopped
    cdef public int64_t _memory_limit_bytes, _event_limit_bytes
    cdef public object _sender, _backbone, _rates, _polls, history, channels

    def publish_now(self, batch not None):
        cdef object events = (<KeyedBatch>batch).events if type(batch) is KeyedBatch else batch
        append = self._backbone.append_now
        if append is None or self.interceptors is not None or self._is_watched:
            return None
        if self._obstacle(events) is not None:
            return None
        if self._is_restricted and self._against_rules(events) is not None:
            return None
        positions = append(batch)
        if positions is not None:
            self.events_published += <uint64_t>len(positions)
        return positions

    def _obstacle(self, events not None):
        if not len(events):
            return "empty"
        if self.refuses:
            return "draining"
        if commands_pending(self._sender) >= QUEUE_MAX:
            return "queue"
        largest_bytes, pending_bytes = sizes(events)
        if 0 < self._event_limit_bytes < largest_bytes:
            return "size"
        if bytes_held() + pending_bytes > self._memory_limit_bytes:
            return "memory"
        return None

    def _deliver(self, entries not None):
        if self._is_stopped:
            return
        self.history.take(
            entries, self._sender, self.channels.of_everything > 0, self.channels.with_views > 0)
        self.entries_seen += <uint64_t>len(entries)
        if self._polls.waiting:
            self._polls.on_entries(entries)
        if self.on_reached is not None:
            self.on_reached()
        if self._is_watched and self._rates.active:
            self._rates.on_entries(entries)
        if self.on_entries is not None:
            self.on_entries(entries)
        if self.on_content is not None:
            self.on_content(entries)
