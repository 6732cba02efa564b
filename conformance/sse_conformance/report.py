"""Results as text, HTML, and a table that compares hubs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from sse_conformance.registry import GROUPS, STATUSES, Result
from sse_conformance.run import Run

_MARKS = {"pass": "✓", "fail": "✗", "not supported": "○", "not tested": "·"}
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% } td, th { padding: .3rem .6rem; text-align: left;
border-bottom: 1px solid #8884; vertical-align: top } code, pre { font-size: .85em }
pre { white-space: pre-wrap; overflow-wrap: anywhere } .pass { color: #197a36 } .fail { color:
#c0262d; font-weight: 600 } .not { color: #777 } h2 { margin-top: 2rem }
@media (prefers-color-scheme: dark) { body { background: #181a1b; color: #ddd }
.pass { color: #5bbf76 } .fail { color: #ff7b7b } }
"""


def line(result: Result) -> str:
    """One result for a terminal."""
    seen = f"  ({result.seen})" if result.seen else ""
    return f"{result.status:<14} {result.id:<28} {result.title}{seen}"


def summary(run: Run) -> str:
    """The counts in a line."""
    counts = ", ".join(f"{run.count(status)} {status}" for status in STATUSES)
    return f"{name(run)}: {counts}"


def name(run: Run) -> str:
    return f"{run.title} ({run.label})" if run.label else run.title


def failures(run: Run) -> Iterator[str]:
    """What failed, with commands that show it."""
    for result in run.results:
        if result.status == "fail":
            yield f"\n{result.id}: {result.title}\n  seen: {result.seen}"
            yield from (f"  $ {command}" for command in result.reproduce)


def html(run: Run) -> str:
    """A page of its own."""
    rows = "".join(_group_rows(run))
    about = " · ".join(f"{escape(k)} {escape(v)}" for k, v in run.versions.items())
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(name(run))}</title>"
        f"<style>{_STYLE}</style><h1>SSE conformance: {escape(name(run))}</h1>"
        f"<p>{escape(summary(run))}</p><p>{about} · {run.date} · suite {run.suite}</p>"
        f"<p>{escape(run.settings)}</p>{rows}"
    )


def _group_rows(run: Run) -> Iterator[str]:
    for group, title in GROUPS.items():
        results = [result for result in run.results if result.id.startswith(f"{group}.")]
        if results:
            rows = "".join(map(_html_row, results))
            yield f"<h2>{title}</h2><table><tr><th>check<th>result<th>seen</tr>{rows}</table>"


def _html_row(result: Result) -> str:
    commands = escape("\n".join(result.reproduce))
    shown = f"<pre>{commands}</pre>" if commands else ""
    return (
        f"<tr><td>{escape(result.title)}<br><code>{result.id}</code> {escape(result.source)}"
        f'<td class="{result.status.split()[0]}">{result.status}'
        f"<td>{escape(result.seen)}{shown}</tr>"
    )


def counts_table(runs: Sequence[Run]) -> str:
    """A row for each hub: versions and counts, in Markdown."""
    rows = ["| hub | versions | " + " | ".join(STATUSES) + " |", "| --- | --- |" + " ---: |" * 4]
    for run in runs:
        versions = ", ".join(f"{key} {value}" for key, value in run.versions.items())
        counts = " | ".join(str(run.count(status)) for status in STATUSES)
        rows.append(f"| {name(run)} | {versions} | {counts} |")
    return "\n".join(rows) + "\n"


def comparison(runs: Sequence[Run]) -> str:
    """A table for each group, a row for each check and a column for each hub, in Markdown."""
    by_hub = [{result.id: result for result in run.results} for run in runs]
    known = {result.id: result for run in runs for result in run.results}
    parts = []
    for group, title in GROUPS.items():
        rows = [
            f"| {_cell(result.title)} | {_cell(result.source)} | "
            + " | ".join(_mark(results.get(id)) for results in by_hub)
            + " |"
            for id, result in known.items()
            if id.startswith(f"{group}.")
        ]
        if rows:
            head = f"| check | source | {' | '.join(name(run) for run in runs)} |"
            parts.append("\n".join([f"### {title}", "", head, "| --- |" * 2, *rows, ""]))
    width = len(runs)
    return "\n".join(parts).replace("| --- || --- |", "| --- | --- |" + " :---: |" * width)


def _mark(result: Result | None) -> str:
    return _MARKS[result.status] if result else " "


def details(run: Run) -> str:
    """What one hub fails and what it does not support, in Markdown."""
    lines = []
    for result in run.results:
        if result.status == "fail":
            lines.append(f"- **{result.title}** (`{result.id}`): {_text(result.seen)}")
    reasons = dict.fromkeys(r.seen for r in run.results if r.status == "not supported")
    if reasons:
        lines.append(f"- Not supported: {'; '.join(map(_text, reasons))}.")
    return "\n".join(lines) + "\n" if lines else "No check fails.\n"


def _text(seen: str) -> str:
    """Text of a hub, so that Markdown leaves it as it is."""
    short = seen.replace("\n", " ")
    short = short if len(short) <= 160 else short[:160] + "…"
    return "".join(f"\\{char}" if char in "\\`*_{}[]<>#|" else char for char in short)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
