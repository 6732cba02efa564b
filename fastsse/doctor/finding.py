"""What the doctor says about one thing."""

from dataclasses import dataclass, replace
from enum import StrEnum


class Verdict(StrEnum):
    """How one thing stands. Only `fail` means that the target can't be met as things are."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at.

    `value` is how it is, `needed` how it should be, `why` one or two sentences, `how` what sets
    it. `carries`: how many connections it allows in total as it is; None: no bound by itself.
    `settable`: whether a kernel setting, a limit or an option of ours fixes it; otherwise
    it needs more of something, or fewer connections.
    """

    name: str
    verdict: Verdict
    value: str
    needed: str
    why: str
    how: str
    carries: int | None = None
    settable: bool = True


def without_idle_command(finding: Finding) -> Finding:
    """Without `how` if nothing is wrong or nothing is known."""
    return finding if finding.verdict in (Verdict.WARN, Verdict.FAIL) else replace(finding, how="")
