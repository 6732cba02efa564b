"""Whether there are enough file descriptors: the process's limit, the kernel's caps, our own."""

from fastsse.doctor.finding import Finding, Verdict
from fastsse.doctor.goal import Goal
from fastsse.doctor.machine import UNLIMITED, Machine
from fastsse.doctor.words import count
from fastsse.limits import STREAMS_DEFAULT_MAX

# More than any server uses; such a limit was not chosen but inherited.
ABSURD_LIMIT = 1 << 26
RLIMIT = "RLIMIT_NOFILE"
MAX_CONNECTIONS = "max_connections"


def open_files_limit(machine: Machine, goal: Goal) -> Finding:
    """The hard limit of the process; the server raises its soft one to it by itself."""
    need, hard = goal.descriptors, machine.fd_hard
    asked = goal.descriptors_asked
    if hard is not None and hard <= ABSURD_LIMIT:
        asked = max(asked, hard)
    verdict = Verdict.OK
    why = (
        f"{_each(goal)}; the server keeps {need - goal.stream_descriptors:,} more for publishers, "
        "probes and files. The soft limit may be lower: the server raises it."
    )
    how = (
        f"LimitNOFILE={asked} (systemd, --emit systemd), --ulimit nofile={asked}:{asked} (Docker), "
        "the container runtime's own unit (Kubernetes), ulimit -Hn (a shell). "
        "/etc/security/limits.conf is for logins only, not for services."
        f"\nOr {_more_workers(goal, goal.carried_by(hard or 0))}: the limit is of a process, and "
        "each worker is one."
    )
    if hard is None:
        verdict = Verdict.UNKNOWN
    elif hard < need:
        verdict = Verdict.FAIL
    elif hard > ABSURD_LIMIT:
        verdict = Verdict.WARN
        why += (
            " So large a limit was inherited, not chosen (old Docker): programs that walk through "
            "all possible descriptors hang, and the server takes no more than "
            f"{STREAMS_DEFAULT_MAX:,} streams unless max_connections says otherwise."
        )
    value = count(hard)
    if machine.fd_soft is not None and machine.fd_soft != hard:
        value += f" (soft {count(machine.fd_soft)})"
    return Finding(RLIMIT, verdict, value, _needed(need), why, how, _carried(hard, machine, goal))


def nr_open(machine: Machine, goal: Goal) -> Finding:
    """The kernel's cap on that limit."""
    value = machine.nr_open
    return Finding(
        "fs.nr_open",
        _at_least(value, goal.descriptors),
        count(value),
        _needed(goal.descriptors),
        "No process's descriptor limit can be set above it.",
        f"sysctl -w fs.nr_open={max(goal.descriptors_asked, value or 0)} on the host, before the "
        "limit is raised.",
        _streams(value, goal),
    )


def file_max(machine: Machine, goal: Goal) -> Finding:
    """All descriptors of the machine."""
    others = machine.files_open or 0
    need = file_max_needed(machine, goal)
    value = machine.file_max
    return Finding(
        "fs.file-max",
        _at_least(value, need),
        count(value),
        _needed(need),
        f"All open files of the machine count, {others:,} now. Above it every program fails.",
        f"sysctl -w fs.file-max={max(need, value or 0)} on the host.",
        None if value is None else max(0, value - others),
    )


def file_max_needed(machine: Machine, goal: Goal) -> int:
    """The servers' descriptors, a proxy's two for each stream, and what is open now."""
    by_proxy = 2 * goal.connections if goal.proxied else 0
    return goal.descriptors_asked * goal.processes + by_proxy + (machine.files_open or 0)


def max_connections(machine: Machine, goal: Goal) -> Finding:
    """The server's own option."""
    need, value = goal.connections_each, goal.max_connections
    allowed = value or STREAMS_DEFAULT_MAX
    return Finding(
        MAX_CONNECTIONS,
        Verdict.OK if allowed >= need else Verdict.FAIL,
        f"{value:,}" if value else f"0: what descriptors allow, at most {STREAMS_DEFAULT_MAX:,}",
        _needed(need),
        "The server's own bound on streams, of each process.",
        f"fastsse serve --max-connections {max(need, value)}, or {_more_workers(goal, allowed)}.",
        allowed * goal.processes,
    )


def _each(goal: Goal) -> str:
    if goal.has_tls:
        return f"Each stream over TLS is {goal.descriptors_a_stream} descriptors"
    return "Each stream is a descriptor"


def _more_workers(goal: Goal, streams_each: int) -> str:
    """The workers that carry the goal when each may have so many streams."""
    workers = -(-goal.connections // max(1, streams_each))
    return f"fastsse serve --workers {max(2, goal.processes, workers)}"


def _at_least(value: int | None, need: int) -> Verdict:
    if value is None:
        return Verdict.UNKNOWN
    return Verdict.OK if value >= need else Verdict.FAIL


def _needed(number: int) -> str:
    return f"at least {number:,}"


def _streams(limit: int | None, goal: Goal) -> int | None:
    return None if limit is None else goal.carried_by(limit) * goal.processes


def _carried(hard: int | None, machine: Machine, goal: Goal) -> int | None:
    """`unlimited` means as many as fs.nr_open."""
    return _streams(machine.nr_open if hard is not None and hard >= UNLIMITED else hard, goal)
