"""Files that are ready to install: the whole profile for a goal, not only what is missing.

A file with only the changes would come out empty once it is installed, and the next
`fastsse doctor --emit … > file` would undo it. So each file holds everything that the goal asks
for, and never less than what the machine has now: running it again changes nothing.
"""

from collections.abc import Iterator
from typing import NamedTuple

from fastsse.doctor import network, open_files
from fastsse.doctor.diagnosis import Diagnosis
from fastsse.doctor.finding import Finding, Verdict
from fastsse.doctor.goal import Goal
from fastsse.doctor.kernel_settings import SETTINGS
from fastsse.doctor.machine import Machine
from fastsse.limits import STREAMS_DEFAULT_MAX

KINDS = ("sysctl", "systemd", "docker")
_BUFFERS = {"net.ipv4.tcp_wmem": "4096 16384 4194304", "net.ipv4.tcp_rmem": "4096 131072 6291456"}
_FILES_STEP = 65_536


class SettingLine(NamedTuple):
    """One setting to install, and what it is now (empty: not known)."""

    name: str
    value: str
    now: str

    @property
    def is_namespaced(self) -> bool:
        """Whether a container can have its own."""
        return SETTINGS[self.name].scope.is_namespaced


def emit(kind: str, diagnosis: Diagnosis) -> str:
    """The file of one of KINDS."""
    write = {"sysctl": sysctl_file, "systemd": systemd_file, "docker": docker_file}[kind]
    return "\n".join(write(diagnosis)) + "\n"


def mends(kind: str, finding: Finding) -> bool:
    """Whether this file sets what a finding is about."""
    if finding.name in (open_files.RLIMIT, open_files.MAX_CONNECTIONS):
        return kind != "sysctl"
    setting = SETTINGS.get(finding.name)
    if setting is None or not finding.settable:
        return False
    return kind == "sysctl" or (kind == "docker" and setting.scope.is_namespaced)


def left_over(kind: str, diagnosis: Diagnosis) -> tuple[Finding, ...]:
    """The failures that this file does not fix."""
    failed = (found for found in diagnosis.findings if found.verdict is Verdict.FAIL)
    return tuple(finding for finding in failed if not mends(kind, finding))


def profile(diagnosis: Diagnosis) -> Iterator[SettingLine]:
    """Every kernel setting that the goal asks for."""
    machine, goal = diagnosis.machine, diagnosis.goal
    yield _number("fs.nr_open", machine.nr_open, goal.descriptors_asked)
    files = open_files.file_max_needed(machine, goal)
    yield _number("fs.file-max", machine.file_max, -(-files // _FILES_STEP) * _FILES_STEP)
    yield _number("net.core.somaxconn", machine.somaxconn, goal.backlog)
    yield _number("net.ipv4.tcp_max_syn_backlog", machine.syn_backlog, goal.backlog)
    yield SettingLine("net.ipv4.tcp_syncookies", "1", _text(machine.syncookies))
    yield _tcp_mem(machine, goal)
    yield from _buffers(diagnosis)
    yield from _for_proxies(machine, goal)
    yield from _conntrack(machine, goal)


def _number(name: str, now: int | None, need: int) -> SettingLine:
    return SettingLine(name, str(max(now or 0, need)), _text(now))


def _text(now: int | None) -> str:
    return "" if now is None else str(now)


def _tcp_mem(machine: Machine, goal: Goal) -> SettingLine:
    now = machine.tcp_mem_pages
    value = [max(pair) for pair in zip(now or (0, 0, 0), goal.tcp_mem_pages, strict=True)]
    return SettingLine("net.ipv4.tcp_mem", " ".join(map(str, value)), " ".join(map(str, now or ())))


def _buffers(diagnosis: Diagnosis) -> Iterator[SettingLine]:
    """As they are, unless they are wrong."""
    for finding in diagnosis.findings:
        if finding.name in _BUFFERS and finding.verdict is not Verdict.UNKNOWN:
            wrong = finding.verdict is Verdict.WARN
            value = _BUFFERS[finding.name] if wrong else finding.value
            yield SettingLine(finding.name, value, finding.value)


def _for_proxies(machine: Machine, goal: Goal) -> Iterator[SettingLine]:
    if not goal.proxied:
        return
    first, last = network.WIDE_PORTS
    now = "" if machine.ports is None else "{} {}".format(*machine.ports)
    yield SettingLine("net.ipv4.ip_local_port_range", f"{first} {last}", now)
    lowat = machine.notsent_lowat_bytes
    yield SettingLine(
        "net.ipv4.tcp_notsent_lowat", str(min(lowat or 131_072, 131_072)), _text(lowat)
    )


def _conntrack(machine: Machine, goal: Goal) -> Iterator[SettingLine]:
    if not machine.conntrack_loaded:
        return
    now = machine.conntrack_max
    entry = _number("net.netfilter.nf_conntrack_max", now, network.conntrack_needed(goal))
    yield entry
    yield SettingLine("net.netfilter.nf_conntrack_buckets", str(int(entry.value) // 4), "")


def _title(goal: Goal) -> str:
    shared = f" in {goal.processes} processes" if goal.processes > 1 else ""
    return f"{goal.connections:,} connections{shared}, by fastsse doctor"


def sysctl_file(diagnosis: Diagnosis) -> Iterator[str]:
    """A file for /etc/sysctl.d."""
    yield f"# /etc/sysctl.d/60-fastsse.conf: {_title(diagnosis.goal)}"
    yield "# Load it with: sysctl --system"
    for entry in profile(diagnosis):
        yield ""
        yield f"# {SETTINGS[entry.name].unit}; now {entry.now or 'not known'}"
        if entry.name == "net.ipv4.ip_local_port_range":
            yield "# Keep out of it what servers listen on: net.ipv4.ip_local_reserved_ports = 8080"
        # "-": connection tracking may be loaded later, or never.
        ignored = "-" if entry.name.startswith("net.netfilter.") else ""
        yield f"{ignored}{entry.name} = {entry.value}"


def systemd_file(diagnosis: Diagnosis) -> Iterator[str]:
    """A drop-in for the service."""
    goal = diagnosis.goal
    yield f"# /etc/systemd/system/fastsse.service.d/limits.conf: {_title(goal)}"
    yield "# Load it with: systemctl daemon-reload && systemctl restart fastsse"
    yield "# fs.nr_open must be as large first (fastsse doctor --emit sysctl), or the unit fails."
    yield "[Service]"
    yield f"LimitNOFILE={_nofile(diagnosis)}"
    if _says_maximum(goal):
        yield f"Environment=FASTSSE_MAX_CONNECTIONS={goal.connections_each}"


def docker_file(diagnosis: Diagnosis) -> Iterator[str]:
    """An override for Compose, with the same as flags of `docker run`."""
    goal, nofile = diagnosis.goal, _nofile(diagnosis)
    entries = list(profile(diagnosis))
    inside = [entry for entry in entries if entry.is_namespaced]
    flags = ["docker run", f"--ulimit nofile={nofile}:{nofile}"]
    flags += [f"--sysctl {entry.name}={_quoted(entry.value)}" for entry in inside]
    if _says_maximum(goal):
        flags.append(f"--env FASTSSE_MAX_CONNECTIONS={goal.connections_each}")
    yield f"# compose.fastsse.yaml: {_title(goal)}"
    yield "# docker compose -f compose.yaml -f compose.fastsse.yaml up"
    yield "#"
    yield "# The same as flags:"
    yield from (f"#   {flag} \\" for flag in flags)
    yield "#   fastsse"
    yield "#"
    yield "# On the host, where containers have no value of their own (--emit sysctl):"
    yield from (f"#   {entry.name} = {entry.value}" for entry in entries if entry not in inside)
    yield "# With host networking all of them are set on the host: leave out the sysctls."
    yield "services:"
    yield "  fastsse:"
    yield "    ulimits:"
    yield "      nofile:"
    yield f"        soft: {nofile}"
    yield f"        hard: {nofile}"
    yield "    sysctls:"
    yield from (f'      {entry.name}: "{entry.value}"' for entry in inside)
    if _says_maximum(goal):
        yield "    environment:"
        yield f'      FASTSSE_MAX_CONNECTIONS: "{goal.connections_each}"'


def _quoted(value: str) -> str:
    return f'"{value}"' if " " in value else value


def _nofile(diagnosis: Diagnosis) -> int:
    """Never less than now, unless the present value is an inherited default."""
    hard, asked = diagnosis.machine.fd_hard or 0, diagnosis.goal.descriptors_asked
    return asked if hard > open_files.ABSURD_LIMIT else max(hard, asked)


def _says_maximum(goal: Goal) -> bool:
    """Whether the server needs an option to use so many."""
    return goal.connections_each > STREAMS_DEFAULT_MAX or goal.max_connections != 0
