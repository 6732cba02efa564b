"""The goal for a machine and what it needs: the arithmetic in one place."""

import math
from dataclasses import dataclass

from fastsse.doctor.measured import (
    ACCEPTS_PER_S,
    BUSY_US,
    KERNEL_BYTES,
    OWN_TOPIC_BYTES,
    PROCESS_BYTES,
    SEND_BYTES,
    SEND_US,
    SHARED_BYTES,
    TLS_BYTES,
)
from fastsse.limits import BACKLOG, RESERVE_MIN, reserved_descriptors

# A client whose SYN got no answer sends it again after that long (RFC 6298 §2.1): a queue that
# takes longer to serve holds what comes again anyway.
SYN_RETRY_S = 1
_ROUND_FDS = 1024


@dataclass(frozen=True, slots=True)
class Goal:
    """So many connections, and how they are served.

    Arguments:
        connections: streams at once, on the whole machine.
        processes: servers that share them.
        events_per_s: events that each connection gets a second.
        own_topics: each connection has a topic of its own.
        proxied: a proxy or a load generator on this machine opens a connection for each.
        heartbeat_s, memory_limit_bytes, max_connections: the options of each server.
        has_tls: the servers have a certificate.
    """

    connections: int
    processes: int = 1
    events_per_s: float = 0.0
    own_topics: bool = False
    proxied: bool = False
    heartbeat_s: float = 15.0
    memory_limit_bytes: int = 2**30
    max_connections: int = 0
    has_tls: bool = False

    @property
    def connections_each(self) -> int:
        """Streams of one process."""
        return -(-self.connections // self.processes)

    @property
    def descriptors_a_stream(self) -> int:
        """With TLS the socket of the client and both ends of a pair."""
        return 3 if self.has_tls else 1

    @property
    def stream_descriptors(self) -> int:
        """Those of all streams of one process."""
        return self.connections_each * self.descriptors_a_stream

    @property
    def descriptors(self) -> int:
        """The least limit of one process, with the server's reserve."""
        return descriptors_for(self.stream_descriptors)

    def carried_by(self, limit: int) -> int:
        """The streams that one process takes with a limit of so many descriptors."""
        return streams_of(limit) // self.descriptors_a_stream

    @property
    def descriptors_asked(self) -> int:
        """The limit to set: rounded up."""
        return -(-self.descriptors // _ROUND_FDS) * _ROUND_FDS

    @property
    def backlog(self) -> int:
        """Connections that wait to be accepted, at most, when all come at once."""
        servable = int(ACCEPTS_PER_S.value * SYN_RETRY_S)
        return min(self.connections_each, servable, BACKLOG)

    @property
    def sockets(self) -> int:
        """Sockets of this machine: a proxy on it has one to the client and one to the server."""
        return self.connections * (3 if self.proxied else 1)

    @property
    def tcp_mem_pages(self) -> tuple[int, int, int]:
        """One page a socket at the second bound; the others stand to it as the kernel's own do
        (tcp_init_mem: 3/4 and 3/2 of it)."""
        pages = self.sockets
        return pages * 3 // 4, pages, pages * 3 // 2

    @property
    def flows(self) -> int:
        """Connections that connection tracking sees."""
        return self.connections * (2 if self.proxied else 1)

    @property
    def connection_bytes(self) -> int:
        """Memory of one idle connection: the kernel's for its sockets, and ours."""
        ours = OWN_TOPIC_BYTES if self.own_topics else SHARED_BYTES
        tls_bytes = TLS_BYTES.value if self.has_tls else 0
        return int(KERNEL_BYTES.value * self.sockets / self.connections + ours.value + tls_bytes)

    @property
    def idle_bytes(self) -> int:
        """Memory of all of it at rest, without events."""
        processes_bytes = self.processes * int(PROCESS_BYTES.value)
        return self.connections * self.connection_bytes + processes_bytes

    @property
    def busy_bytes(self) -> int:
        """Memory while an event is sent to all, with all that `memory_limit` allows."""
        sends_bytes = self.sockets * int(SEND_BYTES.value)
        return self.idle_bytes + sends_bytes + self.processes * self.memory_limit_bytes

    @property
    def sends_per_s(self) -> float:
        """Deliveries and heartbeats a second, in total."""
        return self.connections * max(self.events_per_s, 1 / self.heartbeat_s)

    @property
    def cores_at_rest(self) -> float:
        """Cores that sending takes when each event is a send of its own."""
        return self.sends_per_s * SEND_US.value / 1e6

    @property
    def cores_at_least(self) -> float:
        """Cores that sending takes when events share sends, as they do under load. Heartbeats
        have nothing to share with."""
        if self.events_per_s <= 1 / self.heartbeat_s:
            return self.cores_at_rest
        return self.sends_per_s * BUSY_US.value / 1e6

    @property
    def cores(self) -> int:
        """A core for the senders' work, at least one each process, and one for the loops."""
        return max(self.processes, math.ceil(self.cores_at_least)) + 1


def descriptors_for(streams: int) -> int:
    """The least limit of which the server gives `streams` descriptors to streams."""
    limit = streams + RESERVE_MIN
    while limit - reserved_descriptors(limit) < streams:
        limit += streams - (limit - reserved_descriptors(limit))
    return limit


def streams_of(limit: int) -> int:
    """The streams that the server takes with a limit of so many descriptors."""
    return limit - reserved_descriptors(limit)
