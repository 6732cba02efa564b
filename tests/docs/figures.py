"""The tables of measured figures in README and on the page of benchmarks, from `bench/results`.

Links are from the repository's root: `generate.page_text` makes them those of a page.
"""

import json
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from bench.peers.cases import CASES
from tests.docs.blocks import ROOT

__all__ = ["KEPT", "PEER_RUNS", "RUNS", "held", "kept", "measured", "peers", "speed"]

#: Files in `bench/results` that the pages show.
RUNS: Final = (
    *("delivery", "memory", "publishing", "stores", "nodes"),
    *("features", "operators", "redis"),
)
#: Those of `python -m bench.peers`.
PEER_RUNS: Final = ("peers", "peers-mercure")
_RESULTS: Final = ROOT / "bench" / "results"
_HELD: Final = _RESULTS / "held"
_KEPT: Final = _RESULTS / "kept"
#: Names of files in `bench/results/kept`, which `python -m bench.keep` wrote.
KEPT: Final = tuple(sorted(file.stem for file in _KEPT.glob("*.txt")))
_BATCHES: Final = "publish-ndjson"
# Cores of other programs above which a case is named.
_BUSY_MIN: Final = 0.1


def _read(run: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((_RESULTS / f"{run}.json").read_text("utf-8"))
    return found


def measured(run: str) -> str:
    """The cases of a run of `python -m bench`: median and spread of the figure, and the goal."""
    found = _read(run)
    lines = _wrapped(f"[The run](/bench/results/{run}.json) {_circumstances(found)}:")
    lines += ["", "<!-- not run: minutes -->", "```sh"]
    lines += [*_commands(found), "```", ""]
    lines += ["| case | figure | median | least to greatest | goal | met | notes |"]
    lines += ["| --- | --- | ---: | ---: | --- | --- | --- |"]
    for case in found["results"]:
        if _newest(case["name"]) != run:
            continue
        key, unit = case["figure"]
        values = sorted(sample[key] for sample in case["samples"])
        spread = f"{_digits(values[0])} to {_digits(values[-1])} ({len(values)})"
        met = {True: "yes", False: "no", None: ""}[case["met"]]
        median = _digits(statistics.median(values))
        cells = (case["title"], unit, median, spread if len(values) > 1 else "one sample")
        lines.append(_row(*cells, case["to_reach"], met, "; ".join(case["notes"])))
    if busy := _busy([case for case in found["results"] if _newest(case["name"]) == run]):
        lines += ["", *_wrapped(f"Other programs used cores (median): {busy}.")]
    return "\n".join(lines) + "\n"


def _busy(cases: Sequence[Mapping[str, Any]]) -> str:
    """The cases that were measured while other programs worked, with the cores that these used."""
    used = {
        case["title"]: statistics.median(sample.get("others_busy", 0) for sample in case["samples"])
        for case in cases
    }
    return "; ".join(f"{cores:.2f} in {name}" for name, cores in used.items() if cores > _BUSY_MIN)


def kept(name: str) -> str:
    """What a command printed, with its machine."""
    head, _, printed = (_KEPT / f"{name}.txt").read_text("utf-8").partition("\n\n")
    facts = dict(line.split(": ", 1) for line in head.splitlines())
    day = datetime.fromisoformat(facts["at"])
    lines = _wrapped(
        f"[The run](/bench/results/kept/{name}.txt) of {day.day} {day:%B %Y}: commit "
        f"{facts['commit']}, {facts['machine']}; it took {facts['took']}, and other programs used "
        f"{facts['other programs']} meanwhile:"
    )
    commands = [" \\\n    ".join(_wrapped(one, 110)) for one in facts["command"].split("; ")]
    lines += ["", "<!-- not run: minutes -->", "```sh", *commands, "```", ""]
    if "| ---" in printed:  # The command prints tables of a page.
        return "\n".join([*lines, printed.strip()]) + "\n"
    lines.append("```text")
    lines += [part for line in printed.strip().splitlines() for part in _printed(line)]
    return "\n".join([*lines, "```"]) + "\n"


def _printed(line: str) -> list[str]:
    return textwrap.wrap(line, 120, subsequent_indent="    ", drop_whitespace=False) or [""]


def _newest(case: str) -> str:
    """The run that measured this case last: the page shows a case once."""
    runs = {name: _read(name) for name in RUNS}
    having = [name for name, run in runs.items() if any(r["name"] == case for r in run["results"])]
    return max(having, key=lambda name: datetime.fromisoformat(runs[name]["at"]))


def speed() -> str:
    """The README's table: deliveries, memory, connects and publishes."""
    delivery, memory, publishing = _read("delivery"), _read("memory"), _read("publishing")
    lines = _wrapped(f"[The run](/bench/results/delivery.json) {_circumstances(delivery)}.")
    lines += ["", "| load | delivered | p50, p99 | CPU a delivery |", "| --- | --- | --- | --- |"]
    for name in ("steady", "saturation", "wide"):
        lines.append(_delivered(_case(delivery, name)))
    lines += ["", "| what | figure |", "| --- | --- |"]
    idle, opened = _case(memory, "idle-shared"), _case(delivery, "connect")
    own = _case(memory, "idle-own")
    where = "[another run](/bench/results/memory.json)"
    lines.append(_row(f"user memory of an idle stream, {where}", f"{_spread(idle)} bytes"))
    lines.append(_row("the same with a topic of its own", f"{_spread(own)} bytes"))
    lines.append(_row("new streams", f"{_spread(opened)} a second"))
    single, batches = _case(publishing, "publish"), _case(publishing, _BATCHES)
    where = "[another run](/bench/results/publishing.json)"
    lines.append(_row(f"publishes, one event a request, {where}", f"{_spread(single)} a second"))
    lines.append(_row("events in batches of 200, the same", f"{_spread(batches)} a second"))
    return "\n".join(lines) + "\n"


def peers(run: str) -> str:
    """A run of `python -m bench.peers`: its table, what a peer does better, and versions."""
    found = _read(run)
    lines = _wrapped(f"[The run](/bench/results/{run}.json) {_circumstances(found)}:")
    lines += ["", "<!-- not run: minutes -->", "```sh", *_commands(found), "```", ""]
    lines += [
        (_RESULTS / f"{run}.md").read_text("utf-8"),
        *(line for note in found["notes"] for line in _wrapped(f"- {note}")),
        "",
        "Where a peer that delivered all is better:",
        "",
    ]
    lines += _better(found) or ["- nowhere in this run"]
    lines += ["", "| peer | versions | settings |", "| --- | --- | --- |"]
    for peer in found["peers"].values():
        versions = ", ".join(f"{name} {one}" for name, one in peer["versions"].items())
        lines.append(_row(peer["title"], versions, peer["settings"]))
    return "\n".join(lines) + "\n"


def held(*, plain: bool) -> str:
    """Runs of `python -m loadtests.hold`: many streams, plain or with more."""
    files = [json.loads(file.read_text("utf-8")) for file in sorted(_HELD.glob("*.json"))]
    runs = [run for run in files if plain != bool(run["kind"])]
    runs.sort(key=lambda run: (run["kind"], run["connections"]))
    lines = [
        "| streams | with | workers | opened in | CPU to open one | user memory each |"
        " kernel, both ends | an event in every socket after | received | run |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    return "\n".join([*lines, *map(_held_row, runs)]) + "\n"


def _held_row(run: Mapping[str, Any]) -> str:
    """A run that broke says where, in the place of what the streams received."""
    opened, day = run["opened"], datetime.fromisoformat(run["at"])
    name = f"{run['kind'].replace(', ', '-') or 'plain'}-{run['connections']}"
    reached = ", ".join(f"{one:.1f}" for one in run.get("broadcast_reached_all_s", ()))
    received = f"{run.get('events_received', 0):,} of {run['events_expected']:,}"
    resumed = run.get("sample_resumed_exactly")
    return _row(
        f"{run['connections']:,}",
        run["kind"] or "nothing more",
        str(run["workers"]),
        f"{run['opened_s']:.0f} s" + ("" if opened >= run["connections"] else f" for {opened:,}"),
        f"{run['opening_cpu_s'] / opened * 1e6:.0f} µs",
        f"{run['user_bytes_each']:,} B",
        f"{run['kernel_bytes_each_both_ends']:,} B",
        f"{reached} s" if reached else "",
        run.get("broke") or received + (f"; {resumed} resumed" if resumed else ""),
        f"[{day.day} {day:%B}](/bench/results/held/{name}.json)",
    )


def _better(run: Mapping[str, Any]) -> list[str]:
    """A line for each figure in which a peer with history or without is ahead of fastsse."""
    lines = []
    for result in run["results"]:
        whole = all(sample.get("delivered_share", 1) > 0.999 for sample in result["samples"])
        for name, figure in result["figures"].items():
            times = figure["x_ours"]
            if not whole or times is None or result["peer"] == "fastsse":
                continue
            if times > 1 if name == "a_second" else times < 1:
                title = run["peers"][result["peer"]]["title"]
                case = CASES[result["case"]].title
                lines.append(f"- {case}: {title}, {times:.2f} x the {figure['unit']}")
    return lines


def _delivered(case: Mapping[str, Any]) -> str:
    def median(name: str) -> float:
        return statistics.median(sample[name] for sample in case["samples"])

    cpu = f"{median('server_cpu_us'):.1f} µs"
    if case["figure"][0] == "ratio":
        cpu += f", {_spread(case)} x a bare `send` loop"
    latency = f"{median('p50_ms'):.0f}, {median('p99_ms'):.0f} ms"
    return _row(case["title"], f"{median('delivered_share'):.0%}", latency, cpu)


def _circumstances(run: Mapping[str, Any]) -> str:
    machine = run["environment"]
    day = datetime.fromisoformat(run["at"])
    return (
        f"of {day.day} {day:%B %Y}: commit {machine['commit']}, {machine['cores']} cores of "
        f"{machine['cpu']}, Linux {machine['kernel'].partition('-')[0]}, Python {machine['python']}"
    )


def _wrapped(text: str, width: int = 114) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _commands(run: Mapping[str, Any]) -> list[str]:
    commands = run["environment"]["command"].split("; ")
    return [" \\\n    ".join(_wrapped(command, 110)) for command in commands]


def _case(run: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(one for one in run["results"] if one["name"] == name)
    return found


def _spread(case: Mapping[str, Any]) -> str:
    """The median, with the least and the greatest of several samples."""
    values = sorted(sample[case["figure"][0]] for sample in case["samples"])
    median = _digits(statistics.median(values))
    if len(values) == 1:
        return median
    return f"{median} ({_digits(values[0])} to {_digits(values[-1])})"


def _digits(value: float) -> str:
    """Three significant digits."""
    if value >= 1000:
        digits = len(str(int(value))) - 3
        return f"{round(value, -digits):,.0f}"
    return f"{value:.3g}"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
