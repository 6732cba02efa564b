"""`fastsse history check|repair|export|import|trim`: the file of a sqlite store."""

import os
import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import BinaryIO

import click

from fastsse.backbone.sqlite.checking import CheckReport, check
from fastsse.backbone.sqlite.errors import HistoryError, trouble_of
from fastsse.backbone.sqlite.file import HistoryFile
from fastsse.backbone.sqlite.places import position_of
from fastsse.backbone.sqlite.repair import repair
from fastsse.backbone.sqlite.transfer import export_lines, import_lines
from fastsse.backbone.sqlite.trimming import Bounds, trim
from fastsse.cli import EXIT_FAILED
from fastsse.cli.clientoptions import read_duration
from fastsse.cli.flags import FILE_HELP
from fastsse.config import load
from fastsse.positions import format_position, position_ms
from fastsse.units import counted, format_size, parse_size_bytes

PATH = click.argument("path", type=click.Path(dir_okay=False))


@click.group()
def history() -> None:
    """Check, repair, copy or trim the file of a sqlite store.

    \b
    fastsse history check /var/lib/fastsse/history.db
    fastsse history repair history.db
    fastsse history export history.db | gzip > history.jsonl.gz
    zcat history.jsonl.gz | fastsse history import other.db
    fastsse history trim history.db --age 1d
    """


@history.command("check")
@PATH
def check_command(path: str) -> int:
    """Read the whole file and report its content and its problems.

    Exits with 1 if there is a problem. A server may use the file at the same time.
    """
    report = check(path)
    for line in _lines(report):
        click.echo(line)
    for problem in report.problems:
        click.echo(problem, err=True)
    return EXIT_FAILED if report.problems else 0


@history.command("repair")
@PATH
def repair_command(path: str) -> None:
    """Replace a damaged file by a valid one with all undamaged events.

    The damaged file is kept as PATH.damaged. A lost event stays a gap: clients that resume across
    it receive a `fastsse.gap` event. Stop the server first.
    """
    done = repair(path)
    lost = "1 is lost" if done.lost == 1 else f"{done.lost} are lost"
    torn = ", and parts of the file can't be read" if done.is_torn else ""
    kept = "1 event" if done.kept == 1 else f"{done.kept} events"
    click.echo(f"{kept} kept, {lost}{torn}. The damaged file is {done.backup}.", err=True)


@history.command("export")
@PATH
@click.option(
    "--no-streams",
    is_flag=True,
    help="Leave out what makes topics durable streams, and producers: earlier versions refuse it.",
)
def export_command(path: str, no_streams: bool) -> None:
    """Write all events of a file to standard output, a line of JSON for each event, topic, durable
    stream and producer.

    A server may use the file at the same time.
    """
    for line in export_lines(path, has_streams=not no_streams):
        sys.stdout.buffer.write(line + b"\n")


@history.command("import")
@PATH
@click.argument("source", type=click.File("rb"), default="-")
@click.option(
    "--complete",
    is_flag=True,
    help="Nothing was published after the export: streams resume without a gap event.",
)
def import_command(path: str, source: BinaryIO, complete: bool) -> None:
    """Add the lines of an export (SOURCE, or standard input) to a file, which is created if needed.

    Events keep their positions, and positions never decrease. Events that are in the file already
    are skipped, so an interrupted import can be repeated. Events that their topics have evicted
    stay evicted. Durable streams keep their offsets; one that is in the file already is not
    changed. Stop the server first.

    What was published after the export is missing. So clients that resume from before the import
    receive a `fastsse.gap` event, and readers of durable streams with content from after the export
    410, except with --complete.
    """
    with _opened(path) as file:
        imported = import_lines(file, source, is_complete=complete)
    added = counted(imported.added, "event")
    if imported.streams:
        added += f" and {counted(imported.streams, 'durable stream')}"
    evicted = f", {imported.evicted:,} evicted" if imported.evicted else ""
    click.echo(f"{added} imported, {imported.known:,} were there already{evicted}.", err=True)


@history.command("trim")
@PATH
@click.option(
    "--events", type=click.IntRange(0), metavar="N", help="Keep this many events of each topic."
)
@click.option(
    "--age", callback=read_duration, metavar="DURATION", help="Keep events younger than this."
)
@click.option("--bytes", "size", metavar="SIZE", help="Keep this many bytes of each topic.")
@click.option("--total", metavar="SIZE", help="Keep this many bytes of all topics.")
@click.option("--topic", default="*", metavar="GLOB", help="Trim only these topics.")
@click.option("--config", "config", metavar="FILE", help=f"{FILE_HELP}  Its rules apply too.")
@click.option("--compact", is_flag=True, help="Rewrite the file without its free space.")
def trim_command(
    path: str,
    events: int | None,
    age: float | None,
    size: str | None,
    total: str | None,
    topic: str,
    config: str | None,
    compact: bool,
) -> None:
    """Evict events now, the oldest first. A client that resumes before them receives a gap event.

    Stop the server first.
    """
    bounds = Bounds(
        topic,
        events,
        age,
        None if size is None else _read_size("--bytes", size),
        0 if total is None else _read_size("--total", total),
        None if config is None else load(file=config).config,
    )
    if bounds.is_empty and not compact:
        raise click.UsageError(
            "Choose what to keep: --events, --age, --bytes, --total or --config."
        )
    if not os.path.exists(path):
        raise HistoryError(path, "is not there")
    with _opened(path) as file:
        gone = trim(file, bounds, compact)
        left = file.state.events
    click.echo(f"{counted(gone, 'event')} evicted, {left:,} left.", err=True)


@contextmanager
def _opened(path: str) -> Iterator[HistoryFile]:
    """The file, locked for this command."""
    file = HistoryFile(path, lambda: time.time_ns() // 1_000_000)
    try:
        yield file
        file.end(file.state.leased_through)
    except (sqlite3.Error, OSError) as error:
        raise HistoryError(path, f"can't be written: {trouble_of(error).words}") from error
    finally:
        file.close()


def _read_size(flag: str, text: str) -> int:
    try:
        return int(parse_size_bytes(text))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} {error}.", param_hint=flag) from None


def _lines(report: CheckReport) -> Iterable[str]:
    state = report.state
    yield f"{state.events} events of {report.topics} topics, {format_size(state.bytes)}"
    if report.first is not None and report.last is not None:
        yield f"from {_when(report.first)} to {_when(report.last)}"
    yield f"evicted through {_when(state.evicted_through)}"
    if report.lost:
        yield f"{report.lost} lost: clients that resume across it receive a gap event"
    if report.is_unclean:
        lost = "events may be missing" if report.may_have_lost else "nothing is missing"
        yield f"in use, or left by a process that was killed: {lost}"
    yield "all is well" if not report.problems else f"{len(report.problems)} problems"


def _when(place: int) -> str:
    position = position_of(place)
    moment = datetime.fromtimestamp(position_ms(position) / 1000, UTC)
    return f"{format_position(position).decode()} ({moment:%Y-%m-%d %H:%M:%S} UTC)"
