"""Our measured figures: bytes a connection, microseconds a delivery. The doctor and the sizing
formulas of tuning.md compute with these and with nothing else.

To renew one, run what its `source` names on a quiet machine and change the value here; the tables
of tuning.md follow (`python -m tests.docs.tuning`), and a test holds them together.
"""

from typing import NamedTuple


class Figure(NamedTuple):
    """One measurement: its value and unit, what it is, the spread of its repeats, the command it
    comes from."""

    value: float
    unit: str
    what: str
    spread: str
    source: str


MEASURED_ON = (
    "2026-11-21; 2 cores of a virtual machine, Linux 6.18, Python 3.11; server and clients on one "
    "machine over loopback; other work was running, so times are rather too high than too low"
)

KERNEL_BYTES = Figure(
    4037,
    "B",
    "kernel memory of an idle connection: TCP socket 2,521, inode 862, file 195, dentry 195, "
    "security 56, epoll 208",
    "the same in each of 4 repeats",
    "python -m fastsse.doctor.measure",
)
SEND_BYTES = Figure(
    1097,
    "B",
    "kernel memory of a small event that was sent and not yet acknowledged: 512 and 585 of slab; "
    "its bytes come on top",
    "object sizes, not a measurement",
    "python -m fastsse.doctor.measure; skbuff_fclone_cache, skbuff_small_head",
)
SHARED_BYTES = Figure(
    128,
    "B",
    "our memory of an idle connection whose topics others ask for too",
    "107 to 148",
    "python -m bench idle-shared",
)
OWN_TOPIC_BYTES = Figure(
    931,
    "B",
    "our memory of an idle connection with a topic of its own",
    "922 to 940",
    "python -m bench idle-own",
)
TLS_BYTES = Figure(
    14_500,
    "B",
    "what a stream over TLS takes more: OpenSSL's state and our row",
    "one run of 1,000 streams",
    "python -m bench.tls memory",
)
PROCESS_BYTES = Figure(
    45 * 2**20, "B", "a server without streams", "37 to 45 MiB", "python -m fastsse.doctor.measure"
)
SEND_US = Figure(
    7.2,
    "µs",
    "CPU of a delivery when each event is a send of its own (5,000 clients, 10 events/s)",
    "5.9 to 8.8 in 10 runs; a bare send loop in the same runs: 7.3 to 11.3",
    "python -m bench steady",
)
BUSY_US = Figure(
    1.0,
    "µs",
    "CPU of a delivery when about ten events share a send (1,000 clients, 1,000 events/s)",
    "0.92 to 1.0 in 10 runs; a bare send loop in the same runs: 6.0 to 9.4 a send",
    "python -m bench saturation",
)
ACCEPTS_PER_S = Figure(
    20_800,
    "/s",
    "new subscriptions that one process takes",
    "20,600 to 21,000 in 2 runs; 7,400 to 19,000 in 8 while others took the cores",
    "python -m bench connect",
)

FIGURES: dict[str, Figure] = {
    "KERNEL_BYTES": KERNEL_BYTES,
    "SEND_BYTES": SEND_BYTES,
    "SHARED_BYTES": SHARED_BYTES,
    "OWN_TOPIC_BYTES": OWN_TOPIC_BYTES,
    "PROCESS_BYTES": PROCESS_BYTES,
    "SEND_US": SEND_US,
    "BUSY_US": BUSY_US,
    "ACCEPTS_PER_S": ACCEPTS_PER_S,
}
