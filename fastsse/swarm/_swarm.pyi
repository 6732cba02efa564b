"""Types of the load tools' native face (see _swarm.pyx)."""

from collections.abc import Iterable, Sequence

ORDER_NAMES: tuple[str, ...]
COUNTER_NAMES: tuple[str, ...]
MEASURE_NAMES: tuple[str, ...]
PUBLISH_COUNTER_NAMES: tuple[str, ...]
PUBLISH_MEASURE_NAMES: tuple[str, ...]
HISTOGRAM_BUCKETS: int
VALUE: int
BLOCK_BYTES: int
PUBLISH_BLOCK_BYTES: int

class Swarm:
    """Very many SSE clients in one thread.

    A block is `BLOCK_BYTES` of zeros, 8-byte aligned: orders, counters and histograms as 64-bit
    words in the order of ORDER_NAMES, COUNTER_NAMES and MEASURE_NAMES (each histogram
    HISTOGRAM_BUCKETS long). Anyone may read it at any time; orders are written by the caller.

    Costs about 150 bytes of user memory a connection, all allocated here.

    Args:
        block: a writable buffer.
        connections: how many; each needs a file descriptor.
        target: the server's packed socket address.
        request: pieces of the request head up to and without its last blank line, each with the
            modulus of the connection number written after it (0: the number itself; VALUE: the
            connection's value instead; not written after the last piece).
        family: AF_INET or AF_INET6.
        sources: packed source addresses (port 0) to bind in turn; none: the kernel chooses.
        values: connection i has value i, modulo their count.
        first_number: the number of the first connection.
        connects_per_s: pace of new connections; 0: as fast as `max_opening` allows.
        max_opening: connections at most that are connecting or wait for a response head.
        open_timeout_s: a connection without a response head after this ends.
        reconnects: whether ended streams come back, after `retry:` and with Last-Event-ID, as
            those of a browser do.
        default_retry_s: what a browser waits when the server said no `retry:`.
        churn_per_s: once all are open, streams that end each second, each followed by a new one.
        slow_share: 0 … 1 of the connections read slowly, spread evenly among the others.
        slow_bytes_per_s: how fast those read; 0: not at all.
        slow_buffer_bytes: receive buffer (SO_RCVBUF) of those; 0: the kernel's.
        parent_pid: stop when the parent process is no longer this one; 0: any may be.
    """

    def __init__(
        self,
        block: bytearray | memoryview,
        *,
        connections: int,
        target: bytes,
        request: Sequence[tuple[bytes, int]],
        family: int,
        sources: Sequence[bytes] = (),
        values: Sequence[bytes] = (),
        first_number: int = 0,
        connects_per_s: float = 0,
        max_opening: int = 512,
        open_timeout_s: float = 30,
        reconnects: bool = True,
        default_retry_s: float = 3,
        churn_per_s: float = 0,
        slow_share: float = 0,
        slow_bytes_per_s: float = 0,
        slow_buffer_bytes: int = 0,
        parent_pid: int = 0,
    ) -> None: ...
    def run(self) -> None:
        """Runs without the GIL until the block's order to stop, then closes every connection.

        Call it once. Raises OSError when there is no descriptor left for epoll.
        """

class Publisher:
    """An open-loop publisher in one thread: request k is due at `begin_us` + k / requests_per_s.

    The block is `PUBLISH_BLOCK_BYTES`, laid out as for `Swarm` with the PUBLISH_ names.

    Args:
        topics: for each topic in turn the request head up to its Content-Length header and what
            stands before each event's data in the body. A batch's head is its first event's.
        suffix: what stands after each event's data.
        connections: keep-alive connections that take requests in turn.
        depth: requests at most that await their answers on one connection (1: no pipelining).
        batch: events a request.
        size_bytes: data of one event, at least `fastsse.stamp.SIZE_BYTES_MIN`.
        requests_per_s: the pace; 0: a closed loop, as fast as answers come.
        begin_us: microseconds on the real-time clock, 0: now.
        patience_s: how long after the end the last answers are waited for.
        first_source: `source` of the first connection's first topic; others count up from it.
    """

    def __init__(
        self,
        block: bytearray | memoryview,
        *,
        target: bytes,
        family: int,
        topics: Sequence[tuple[bytes, bytes]],
        suffix: bytes = b"",
        connections: int = 1,
        depth: int = 1,
        batch: int = 1,
        size_bytes: int = 128,
        requests_per_s: float = 0,
        begin_us: int = 0,
        duration_s: float = 10,
        patience_s: float = 10,
        first_source: int = 1,
    ) -> None: ...
    def run(self) -> None:
        """Runs without the GIL until all is sent and answered or the block's order to stop."""

def bucket_of(value_us: int) -> int: ...
def read_stamp(data: bytes) -> tuple[int, int, int] | None: ...
def write_stamp(due_us: int, source: int, count: int, size_bytes: int) -> bytes: ...
def judge_counts(arrivals: Iterable[tuple[int, int] | None]) -> list[tuple[str, int]]: ...
def decode_chunks(pieces: Iterable[bytes]) -> tuple[bytes, bool]: ...
def decode_events(
    pieces: Iterable[bytes],
) -> list[tuple[bytes, bytes, int, int, bytes]]: ...
