"""The command `sse-conformance`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from sse_conformance import __version__, report
from sse_conformance.adapter import AdapterError, load, names
from sse_conformance.registry import CHECKS, Check, NotTested
from sse_conformance.run import Options, run
from sse_conformance.server import missing_programs


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sse-conformance",
        description="Check a Server-Sent-Events hub from outside.",
        epilog="Exit status: 0 no check failed, 1 one failed, 2 the call or the hub is wrong.",
    )
    parser.add_argument("url", nargs="?", help="http://host:port of a running hub")
    parser.add_argument(
        "--adapter", default="fastsse", metavar="NAME",
        help=f"{', '.join(names())}, or the path of a TOML file",
    )  # fmt: skip
    parser.add_argument(
        "--start", action="store_true",
        help="start the hub as the adapter says, so that restarts are checked too",
    )  # fmt: skip
    parser.add_argument("--variant", default="", help="start this variant of the adapter's server")
    parser.add_argument("--label", default="", help="stands behind the hub's name in reports")
    parser.add_argument("--short", action="store_true", help="the quick checks, fewer repeats")
    parser.add_argument(
        "--only", action="append", default=[], metavar="ID", help="a check or a group; repeatable"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page here")
    parser.add_argument(
        "--node-modules", default=os.environ.get("SSE_CONFORMANCE_NODE_MODULES", ""),
        metavar="FOLDER", help="where npm's eventsource is",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list the checks and end")
    parser.add_argument("--version", action="version", version=__version__)
    return parser


def _address(url: str, parser: argparse.ArgumentParser) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        parser.error(f"{url}: must be http://host:port")
    return parts.hostname, parts.port or 80


def _listed(one: Check) -> str:
    return f"{one.id:<28} {one.title} [{one.source}]{' (long)' if one.is_long else ''}"


def main(arguments: list[str] | None = None) -> None:
    """Runs the command and exits."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.list:
        try:
            print("\n".join(_listed(one) for one in CHECKS.values()), flush=True)
        except BrokenPipeError:  # Its reader, such as `head`, has enough.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    if bool(given.url) == given.start:
        parser.error("give either the URL of a running hub or --start")
    groups = {one.group for one in CHECKS.values()}
    for wanted in given.only:
        if wanted not in CHECKS and wanted not in groups:
            parser.error(f"{wanted}: no such check or group; --list shows them")
    try:
        adapter = load(given.adapter)
    except AdapterError as error:
        parser.error(str(error))
    if given.start and (missing := missing_programs(adapter)):
        parser.error(f"not installed: {', '.join(missing)}")
    options = Options(
        address=None if given.start else _address(given.url, parser),
        variant=given.variant, only=tuple(given.only), is_short=given.short,
        node_modules=given.node_modules, label=given.label,
    )  # fmt: skip
    try:
        done = run(adapter, options, lambda result: print(report.line(result), flush=True))
    except NotTested as error:
        parser.error(str(error))
    print("\n".join(report.failures(done)))
    print(report.summary(done))
    if given.json:
        given.json.write_text(done.to_json(), "utf-8")
    if given.html:
        given.html.write_text(report.html(done), "utf-8")
    sys.exit(1 if done.count("fail") else 0)
