"""All checks together: whether the goal can be met, and which settings must change."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fastsse.doctor import network, open_files, resources
from fastsse.doctor.finding import Finding, Verdict, without_idle_command
from fastsse.doctor.goal import Goal
from fastsse.doctor.machine import Machine

Check = Callable[[Machine, Goal], Finding | None]

CHECKS: Sequence[Check] = (
    open_files.open_files_limit,
    open_files.nr_open,
    open_files.file_max,
    open_files.max_connections,
    resources.memory,
    resources.cgroup_memory,
    resources.cores,
    resources.cgroup_cpus,
    network.tcp_mem,
    network.conntrack,
    network.somaxconn,
    network.syn_backlog,
    network.tcp_wmem,
    network.tcp_rmem,
    network.notsent_lowat,
    network.port_range,
)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found on a machine for a goal."""

    machine: Machine
    goal: Goal
    findings: tuple[Finding, ...]

    def without_idle_commands(self) -> "Diagnosis":
        """The same, with commands only where something is wrong."""
        return replace(self, findings=tuple(map(without_idle_command, self.findings)))

    @property
    def can(self) -> bool:
        """Whether the goal can be met as things are."""
        return not self.failed

    @property
    def narrowest(self) -> Finding | None:
        """The finding that allows the fewest connections."""
        bounds = [finding for finding in self.findings if finding.carries is not None]
        return min(bounds, key=lambda finding: finding.carries or 0, default=None)

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The failures."""
        return tuple(f for f in self.findings if f.verdict is Verdict.FAIL)

    @property
    def beyond_settings(self) -> tuple[Finding, ...]:
        """Failures that no setting fixes."""
        return tuple(finding for finding in self.failed if not finding.settable)


def examine(machine: Machine, goal: Goal) -> Diagnosis:
    """Runs every check."""
    found = (check(machine, goal) for check in CHECKS)
    return Diagnosis(machine, goal, tuple(finding for finding in found if finding is not None))
