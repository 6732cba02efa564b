"""Our measured figures: bytes a connection, microseconds a delivery. The doctor and the sizing
formulas of tuning.md compute with these and with nothing else.

To renew one, run what its `source` names on a quiet machine and change the value here; the tables
of tuning.md follow (`python -m tests.docs.tuning`), and a test holds them together.
"""

from typing import NamedTuple


class Figure(NamedTuple):
    """One measurement: its value and unit, what it is, the spread of its repeats, the command it
    comes from, and the file with its output."""

    value: float
    unit: str
    what: str
    spread: str
    source: str
    run: str = ""


MEASURED_ON = (
    "2026-11-30; 2 cores of a virtual machine, Linux 6.18, Python 3.11; server and clients on one "
    "machine over loopback"
)

KERNEL_BYTES = Figure(
    4037,
    "B",
    "kernel memory of an idle connection: TCP socket 2,521, inode 862, file 195, dentry 195, "
    "security 56, epoll 208",
    "the same in each of 4 repeats on 2026-11-21; the output was not kept",
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
    155,
    "B",
    "our memory of an idle connection whose topics others ask for too; 64 of it are what operators "
    "see of it",
    "155 to 156 in 3 runs",
    "python -m bench idle-shared",
    "bench/results/memory.json",
)
OWN_TOPIC_BYTES = Figure(
    988,
    "B",
    "our memory of an idle connection with a topic of its own",
    "987 to 991 in 3 runs",
    "python -m bench idle-own",
    "bench/results/memory.json",
)
TLS_BYTES = Figure(
    14_500,
    "B",
    "what a stream over TLS takes more: OpenSSL's state and our row",
    "one run of 1,000 streams",
    "python -m bench.tls memory",
)
PROCESS_BYTES = Figure(
    45 * 2**20, "B", "a server without streams", "37 to 48 MiB", "python -m fastsse.doctor.measure"
)
SEND_US = Figure(
    5.0,
    "µs",
    "CPU of a delivery when each event is a send of its own (5,000 clients, 10 events/s)",
    "4.6 to 5.2 in 3 runs; 0.95 to 1.1 times a bare send loop in the same runs",
    "python -m bench steady",
    "bench/results/delivery.json",
)
BUSY_US = Figure(
    1.0,
    "µs",
    "CPU of a delivery when about ten events share a send (1,000 clients, 1,000 events/s)",
    "1.0 in each of 3 runs; 0.27 to 0.34 times a bare send loop in the same runs",
    "python -m bench saturation",
    "bench/results/delivery.json",
)
ACCEPTS_PER_S = Figure(
    20_800,
    "/s",
    "new subscriptions that one process takes",
    "19,000 to 23,200 in 3 runs",
    "python -m bench connect",
    "bench/results/delivery.json",
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
