"""Writes the parts of pages that the program or a result says: `make reference`.

A page has them between `<!-- generated: NAME -->` and `<!-- end -->`. A test compares.
"""

import ast
import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import click
from click.testing import CliRunner

from bench.proxies import PROXIES
from bench.proxies import table as proxies_table
from fastsse.cli import fastsse as program
from fastsse.config.catalogue import REQUIRED, Option, catalogue, markdown_table, table_catalogue
from fastsse.metrics import COUNTERS, GAUGES, STORE_COUNTERS, STORE_GAUGES, Metrics
from fastsse.refusal_reasons import CLIENT_LIMITS, PUBLISH_REASONS, STREAM_REASONS
from tests.conformance import FOLDER as SUITE  # Makes the suite importable.
from tests.docs.blocks import ROOT
from tests.docs.figures import KEPT, PEER_RUNS, RUNS, held, kept, measured, peers, speed
from tests.docs.manpages import share_files

from sse_conformance import report  # isort: skip
from sse_conformance.run import read_run  # isort: skip

DOCS = ROOT / "docs"
_PART = re.compile(r"(<!-- generated: ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_LOGGER = re.compile(r'get_logger\("([\w.]+)"\)')
_LEVELS = ("debug", "info", "warning", "error", "exception", "critical")


def page_text(path: Path) -> str:
    """A page of the reference as it should be."""
    up = "../" * (len(path.relative_to(ROOT).parts) - 1)

    def written(part: re.Match[str]) -> str:
        text = PARTS[part[2]]().replace("](/bench/", f"]({up}bench/")
        return f"{part[1]}\n{text}\n{part[4]}"

    return _PART.sub(written, path.read_text())


def pages() -> list[Path]:
    """The pages that have generated parts."""
    docs = (path for path in sorted(DOCS.rglob("*.md")) if path.name != "writing.md")
    found = (ROOT / "README.md", *docs)
    return [path for path in found if _PART.search(path.read_text())]


def _rule_table(name: str) -> str:
    rows = ["| key | default | allowed | what it does |", "| --- | --- | --- | --- |"]
    for option in table_catalogue(name).values():
        default = REQUIRED if option.default == REQUIRED else f"`{option.default}`"
        rows.append(_row(f"`{option.name}`", default, option.bounds, option.help))
    return "\n".join(rows) + "\n"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def commands() -> str:
    """The help of every command. Of the server's options only the first lines are shown."""
    return "\n".join(_command_texts("fastsse", program, None))


def _command_texts(
    name: str, command: click.Command, parent: click.Context | None
) -> Iterator[str]:
    # With the settings of the command: click keeps the help option that it makes first.
    own = {**command.context_settings, "max_content_width": 100, "terminal_width": 100}
    context = click.Context(command, info_name=name, parent=parent, color=False, **own)
    text = command.get_help(context)
    server_group = f"\n\n{_first_option().group}:\n"
    if server_group in text:
        text = text.partition(server_group)[0] + "\n\n  … and every option of the server"
    depth = "##" if parent is None or parent.parent is None else "###"
    yield f"{depth} {context.command_path}\n\n```text\n{text}\n```\n"
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            if found is not None and not found.hidden:
                yield from _command_texts(inner, found, context)


def _first_option() -> Option:
    return next(iter(catalogue().values()))


def log_events() -> str:
    """Every record that the program's source can write: event, level, fields."""
    found: dict[tuple[str, str, str], str] = {}
    for path in sorted((ROOT / "fastsse").rglob("*.py")):
        text = path.read_text()
        folder = path.relative_to(ROOT / "fastsse").with_suffix("").parts[0]
        part = next(iter(_LOGGER.findall(text)), folder)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and (record := _record(node)):
                event, level, fields = record
                found[part, event, level] = fields
    rows = ["| part | event | level | fields |", "| --- | --- | --- | --- |"]
    rows += [_row(part, event, level, f) for (part, event, level), f in sorted(found.items())]
    return "\n".join(rows) + "\n"


def _record(call: ast.Call) -> tuple[str, str, str] | None:
    """What a call of a logger writes; None for other calls."""
    if not (isinstance(call.func, ast.Attribute) and call.func.attr in _LEVELS and call.args):
        return None
    event = call.args[0]
    if not (isinstance(event, ast.Constant) and isinstance(event.value, str)):
        return None
    if not re.search(r"log$|logger$", ast.unparse(call.func.value)):
        return None
    names = [
        f"`{keyword.arg}`" for keyword in call.keywords if keyword.arg not in (None, "exc_info")
    ]
    level = {"exception": "error", "critical": "error"}.get(call.func.attr, call.func.attr)
    return event.value, level, ", ".join(names)


_FAMILY = re.compile(r"# HELP (\S+) (.*)\n# TYPE \S+ (\w+)\n((?:[^#\n].*\n)*)")
_LABEL = re.compile(r'(\w+)="')


def families(exposition: str) -> dict[str, tuple[str, str, str]]:
    """What a body of `/metrics` holds: type, labels and help by name."""
    found = {}
    for name, about, kind, samples in _FAMILY.findall(exposition):
        labels = dict.fromkeys(_LABEL.findall(samples))
        labels.pop("le", None)
        found[name] = (kind, ", ".join(f"`{label}`" for label in labels), about)
    return found


def refusals() -> str:
    """Every reason of a refusal, by metric."""
    rows = ["| metric | label | meaning |", "| --- | --- | --- |"]
    tables = (
        ("publish_refused", "reason", PUBLISH_REASONS),
        ("turned_away", "reason", STREAM_REASONS),
        ("limited", "limit", CLIENT_LIMITS),
    )
    for name, label, reasons in tables:
        rows += [
            _row(f"`fastsse_{name}_total`", f'`{label}="{reason}"`', meaning)
            for reason, meaning in reasons.items()
        ]
    return "\n".join(rows) + "\n"


def metrics() -> str:
    """Every family that a service can have, with a value for each of its labels."""
    rows = (*GAUGES, *COUNTERS, *STORE_GAUGES, *STORE_COUNTERS)
    counters = {row.key + " ".join("x" for _ in row.label.split()): 0 for row in rows}
    whole = Metrics([lambda: counters], lambda: ((1.0,), (0, 0), 0.0), {"version": "x"})
    lines = ["| metric | type | labels | what it is |", "| --- | --- | --- | --- |"]
    for name, (kind, labels, about) in families(whole.exposition().decode()).items():
        lines.append(_row(f"`{name}`", kind, labels, about))
    return "\n".join(lines) + "\n"


def conformance(part: str) -> str:
    """The results in `conformance/results`: `counts`, `tables`, or `details` of each hub."""
    runs = [read_run(RESULTS / f"{name}.json") for name in HUBS]
    if part == "counts":
        return report.counts_table(runs)
    if part == "tables":
        return report.comparison(runs)
    return "\n".join(f"### {report.name(one)}\n\n{report.details(one)}" for one in runs)


RESULTS = SUITE / "results"
HUBS = (
    "fastsse-memory",
    "fastsse-sqlite",
    "fastsse-workers",
    "mercure-on-fastsse",
    "nchan",
    "pushpin",
    "centrifugo",
    "mercure",
    "better-sse",
    "sse-starlette",
)
_NODES = ("--node", "10.0.0.11:8080", "--node", "10.0.0.12:8080")
_SITE = ("--domain", "sse.example.com", *_NODES)
#: Files of `deploy/` to the arguments of `fastsse proxy-config` that print them.
DEPLOY_FILES: dict[str, tuple[str, ...]] = {
    "nginx.conf": ("nginx", *_SITE),
    "haproxy.cfg": ("haproxy", *_SITE),
    "Caddyfile": ("caddy", *_SITE),
    "retry.http": ("haproxy", "--errorfile"),
    # In the containers of compose.yaml: names of nodes, and Docker's own name server.
    "compose-haproxy.cfg": (
        *("haproxy", "--plain", "--listen", ":8080", "--node", "one:8080", "--node", "two:8080"),
        *("--resolver", "127.0.0.11:53", "--run-folder", "/usr/local/etc/haproxy"),
    ),
}


def deploy_file(name: str) -> str:
    """A file of `deploy/` as it should be."""
    return _proxy_config(*DEPLOY_FILES[name])


def _proxy_config(*arguments: str) -> str:
    ran = CliRunner().invoke(program, ["proxy-config", *arguments], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return ran.stdout


def recipe(proxy: str) -> str:
    """The file of a proxy for one server on its machine, as a block."""
    text = _proxy_config(proxy, "--domain", "sse.example.com")
    return f"<!-- not run: it needs a certificate -->\n```{proxy}\n{text}```\n"


def proxies() -> str:
    """What proxies cost, as the last run of `bench.proxies` measured it."""
    path = ROOT / "bench" / "results" / "proxies.json"
    return proxies_table(json.loads(path.read_text("utf-8"))["results"])


PARTS: dict[str, Callable[[], str]] = {
    "options": markdown_table,
    "topics": lambda: _rule_table("topics"),
    "sources": lambda: _rule_table("sources"),
    "webhooks": lambda: _rule_table("webhooks"),
    "mirrors": lambda: _rule_table("mirrors"),
    "hooks": lambda: _rule_table("hooks"),
    "rules": lambda: _rule_table("rules"),
    "commands": commands,
    "log-events": log_events,
    "metrics": metrics,
    "refusals": refusals,
    "proxies": proxies,
    "held-plain": partial(held, plain=True),
    "held-more": partial(held, plain=False),
    **{f"recipe-{proxy}": partial(recipe, proxy) for proxy in PROXIES},
    **{
        f"conformance-{part}": partial(conformance, part)
        for part in ("counts", "details", "tables")
    },
    **{f"run-{run}": partial(measured, run) for run in RUNS},
    **{f"kept-{name}": partial(kept, name) for name in KEPT},
    "speed": speed,
    **{run: partial(peers, run) for run in PEER_RUNS},
}


def main() -> int:
    """Writes the pages, and files of `deploy/`."""
    texts = {path: page_text(path) for path in pages()}
    texts |= {ROOT / "deploy" / name: deploy_file(name) for name in DEPLOY_FILES}
    texts |= {ROOT / "deploy" / "share" / name: text for name, text in share_files().items()}
    for path, text in texts.items():
        if not path.exists() or text != path.read_text():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
