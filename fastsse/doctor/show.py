"""Findings for eyes, for pipes and for programs."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from fastsse.doctor.diagnosis import Diagnosis
from fastsse.doctor.finding import Finding, Verdict
from fastsse.doctor.words import harmless

_STYLES = {
    Verdict.OK: "green",
    Verdict.WARN: "yellow",
    Verdict.FAIL: "bold red",
    Verdict.UNKNOWN: "magenta",
}
_WIDEST = 130
_VERDICT_WIDTH = 9
_VALUE_WIDTH = 32


def show(
    console: Console, title: str, columns: tuple[str, str], findings: Sequence[Finding]
) -> None:
    """A table in a terminal; elsewhere plain lines, the first of each finding fit for grep."""
    findings = [_harmless(finding) for finding in findings]
    if console.is_terminal:
        console.print(_table(title, columns, findings), width=min(console.width, _WIDEST))
    else:
        say(console, title)
        for line in plain(findings, columns[1]):
            say(console, line)


def _harmless(finding: Finding) -> Finding:
    return replace(
        finding,
        value=harmless(finding.value),
        needed=harmless(finding.needed),
        why=harmless(finding.why),
        how=harmless(finding.how),
    )


def say(console: Console, line: str, style: str = "") -> None:
    """A line as it is: wrapped in a terminal, whole elsewhere."""
    console.print(Text(line, style=style), soft_wrap=not console.is_terminal)


def _table(title: str, columns: tuple[str, str], findings: Sequence[Finding]) -> Group:
    """Values in columns; under each what they mean, over the whole width."""
    name_width = max(len(finding.name) for finding in findings) + 2

    def row(*cells: Text) -> Table:
        grid = Table.grid(padding=(0, 1, 0, 0), expand=True)
        for width in (_VERDICT_WIDTH, name_width, _VALUE_WIDTH):
            grid.add_column(width=width, overflow="fold")
        grid.add_column(ratio=1, overflow="fold")
        grid.add_row(*cells)
        return grid

    head = (Text(word, style="bold") for word in ("", "what", *columns))
    parts: list[RenderableType] = [Text(title, style="bold"), row(*head), Rule(style="dim")]
    for finding in findings:
        style = _STYLES[finding.verdict]
        marked = (Text(finding.verdict, style=style), Text(finding.name, style=style))
        parts.append(row(*marked, Text(finding.value), Text(finding.needed)))
        parts.append(Padding(_reason(finding), (0, 0, 0, _VERDICT_WIDTH + 1)))
    return Group(*parts, Rule(style="dim"))


def _reason(finding: Finding) -> Text:
    """Why, and how; what is wrong stands out."""
    is_ok = finding.verdict is Verdict.OK
    reason = Text(finding.why, style="dim" if is_ok else "")
    for line in finding.how.splitlines():
        reason.append("\n→ " + line, style="" if is_ok else "bold")
    return reason


def plain(findings: Sequence[Finding], needed: str) -> Iterator[str]:
    """A line each for what it is, why, and the ways to fix it."""
    for finding in findings:
        wanted = f"; {needed}: {finding.needed}" if finding.needed else ""
        yield f"{finding.verdict:<{_VERDICT_WIDTH}}{finding.name}: {finding.value}{wanted}"
        yield " " * _VERDICT_WIDTH + finding.why
        for line in finding.how.splitlines():
            yield " " * _VERDICT_WIDTH + "→ " + line


def show_machine(console: Console, diagnosis: Diagnosis) -> None:
    """The table and the answer in words."""
    show(console, machine_title(diagnosis), ("now", "needed"), diagnosis.findings)
    for line in machine_closing(diagnosis):
        say(console, line, style="green" if diagnosis.can else "bold red")


def machine_title(diagnosis: Diagnosis) -> str:
    """What was asked."""
    goal = diagnosis.goal
    parts = [f"{goal.connections:,} connections"]
    if goal.processes > 1:
        parts.append(f"in {goal.processes} processes")
    if goal.events_per_s:
        parts.append(f"{goal.events_per_s:g} events a second to each")
    if goal.own_topics:
        parts.append("a topic each")
    if goal.proxied:
        parts.append("a proxy or load generator on this machine")
    return ", ".join(parts)


def machine_closing(diagnosis: Diagnosis) -> Iterator[str]:
    """The answer in words."""
    narrowest = diagnosis.narrowest
    if narrowest is not None:
        about = f"{narrowest.carries:,} connections; {narrowest.name} is what bounds it"
        yield f"As it is, this machine carries about {about}."
    if diagnosis.can:
        yield "The target can be met."
    elif diagnosis.beyond_settings:
        names = _list([finding.name for finding in diagnosis.beyond_settings])
        yield f"The target can't be met here: not enough for it: {names}."
    else:
        names = _list([finding.name for finding in diagnosis.failed])
        yield f"The target can't be met as things are. Settings fix it: {names}."
        yield "Ready to install: --emit sysctl, --emit systemd, --emit docker."


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def machine_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Everything, fit for json.dumps."""
    narrowest = diagnosis.narrowest
    return {
        "can": diagnosis.can,
        "carries": None if narrowest is None else narrowest.carries,
        "bounded_by": None if narrowest is None else narrowest.name,
        "goal": asdict(diagnosis.goal),
        "machine": asdict(diagnosis.machine),
        "findings": findings_json(diagnosis.findings),
    }


def findings_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """The findings as objects."""
    return [asdict(finding) for finding in findings]
