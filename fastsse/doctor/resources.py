"""Whether memory and cores suffice, of the machine and of the control group."""

from dataclasses import replace

from fastsse.doctor.finding import Finding, Verdict
from fastsse.doctor.goal import Goal
from fastsse.doctor.machine import Machine
from fastsse.doctor.measured import BUSY_US, SEND_US
from fastsse.doctor.words import count, short, size


def memory(machine: Machine, goal: Goal) -> Finding:
    """Memory that is free for it on the machine."""
    available = machine.memory_available_bytes
    value = f"{size(available)} available of {size(machine.memory_bytes)}"
    return _memory("memory", available, value, goal)


def cgroup_memory(machine: Machine, goal: Goal) -> Finding | None:
    """Memory that the control group leaves; None without a limit."""
    limit, used = machine.cgroup.memory_limit_bytes, machine.cgroup.memory_used_bytes
    if limit is None:
        return None
    value = f"{size(limit)} ({size(used)} used)"
    found = _memory("cgroup memory", max(0, limit - (used or 0)), value, goal)
    how = (
        f"Raise MemoryMax= (systemd), --memory (Docker) or limits.memory (Kubernetes). {found.how}"
    )
    why = f"{found.why} The group counts kernel memory too."
    return replace(found, why=why, how=how)


def _memory(name: str, available: int | None, value: str, goal: Goal) -> Finding:
    idle, busy = goal.idle_bytes, goal.busy_bytes
    verdict = Verdict.UNKNOWN
    carries = None
    if available is not None:
        verdict = Verdict.OK if available >= busy else Verdict.WARN
        verdict = Verdict.FAIL if available < idle else verdict
        fixed = goal.idle_bytes - goal.connections * goal.connection_bytes
        carries = max(0, available - fixed) // goal.connection_bytes
    return Finding(
        name,
        verdict,
        value,
        f"{size(idle)} at rest, {size(busy)} with events",
        f"{goal.connection_bytes:,} B a connection at rest, kernel and ours; an event under way to "
        f"each costs about 1 KiB more, and events may take memory_limit "
        f"({size(goal.memory_limit_bytes)} a process).",
        _memory_how(available, goal),
        carries,
        settable=False,
    )


def _memory_how(available: int | None, goal: Goal) -> str:
    how = "More memory, or fewer connections."
    if available is not None and goal.idle_bytes <= available < goal.busy_bytes:
        events = available - (goal.busy_bytes - goal.processes * goal.memory_limit_bytes)
        limit_mib = events // goal.processes // 2**20
        if limit_mib >= 16:
            return f"--memory-limit {limit_mib}MiB --history-total {limit_mib // 4}MiB, or more."
    return how


def cores(machine: Machine, goal: Goal) -> Finding:
    """Cores that the server may use."""
    number = machine.cores
    return _cores("cores", None if number is None else float(number), count(number), goal)


def cgroup_cpus(machine: Machine, goal: Goal) -> Finding | None:
    """CPU time that the control group allows; None without a limit."""
    cpus = machine.cgroup.cpus
    if cpus is None:
        return None
    found = _cores("cgroup cpu", cpus, f"{short(cpus)} cores", goal)
    how = f"Raise CPUQuota= (systemd), --cpus (Docker) or limits.cpu (Kubernetes). {found.how}"
    why = f"{found.why} A group above its quota stands still for tens of milliseconds."
    return replace(found, why=why, how=how)


def _cores(name: str, number: float | None, value: str, goal: Goal) -> Finding:
    """One sender is one thread: a process sends with one core, however many there are."""
    least = goal.cores_at_least
    verdict = Verdict.UNKNOWN
    if number is not None:
        usable = min(number, goal.processes)
        enough = number >= goal.cores and goal.cores_at_rest <= usable
        verdict = Verdict.OK if enough else Verdict.WARN
        verdict = Verdict.FAIL if least > usable else verdict
    each = goal.sends_per_s / goal.connections
    carries = None
    if number is not None and least > 0:
        carries = int(goal.connections * min(number, goal.processes) / least)
    what = "events" if goal.events_per_s > 1 / goal.heartbeat_s else "heartbeats"
    return Finding(
        name,
        verdict,
        value,
        f"{goal.cores} ({_range(least, goal.cores_at_rest)} for sending)",
        f"{goal.sends_per_s:,.0f} sends a second ({short(each)} {what} a connection) at "
        f"{SEND_US.value} µs each; where events share sends, as they do under load, "
        f"{BUSY_US.value} µs a delivery. A process sends with one core and needs another for "
        "requests.",
        _cores_how(goal),
        carries,
        settable=False,
    )


def _range(least: float, most: float) -> str:
    return short(most) if least == most else f"{short(least)} to {short(most)}"


def _cores_how(goal: Goal) -> str:
    if goal.cores_at_least > goal.processes:
        return "More server processes (--processes) and cores, fewer events, or fewer connections."
    return "More cores; or accept that events wait for each other and share sends."
