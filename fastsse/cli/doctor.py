"""`fastsse doctor`: checks the limits of this machine, or the path to a server through proxies."""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any

import click
from rich.console import Console

from fastsse.cli import EXIT_FAILED
from fastsse.cli.clientoptions import TOKEN_VARIABLES, read_duration
from fastsse.cli.flags import FILE_HELP
from fastsse.client.http import events_url
from fastsse.config import Config, load
from fastsse.doctor import Diagnosis, Finding, Goal, Verdict, examine, read_machine
from fastsse.doctor.certificates import TlsFiles, examine_certificates
from fastsse.doctor.emit import KINDS, emit, left_over
from fastsse.doctor.finding import without_idle_command
from fastsse.doctor.path import TrialTiming, Way, judge, try_path
from fastsse.doctor.path.evidence import Evidence
from fastsse.doctor.path.judge import summary
from fastsse.doctor.show import findings_json, machine_json, say, show, show_machine
from fastsse.limits import TRIAL_TOPICS

DEFAULT_CONNECTIONS = 10_000


def _check_url(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    try:
        return value if value is None else events_url(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", ctx, parameter) from None


def _check_pid(ctx: click.Context, parameter: click.Parameter, value: int | None) -> str:
    if value is None:
        return "self"
    if not os.path.isdir(f"/proc/{value}"):
        raise click.BadParameter(f"there is no process {value}.", ctx, parameter)
    return str(value)


@click.command()
@click.option(
    "--connections",
    "-c",
    type=click.IntRange(1, 100_000_000),
    metavar="N",
    help=f"Open streams on the whole machine.  [default: {DEFAULT_CONNECTIONS} without --url]",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 10_000),
    default=1,
    show_default=True,
    metavar="N",
    help="Server processes that share the streams.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0),
    default=0.0,
    metavar="R",
    help="Events a second that each stream receives.  [default: heartbeats only]",
)
@click.option("--own-topics", is_flag=True, help="Each stream has a topic of its own.")
@click.option(
    "--proxied", is_flag=True, help="A proxy or load generator also runs on this machine."
)
@click.option(
    "--pid",
    "process",
    type=int,
    callback=_check_pid,
    metavar="PID",
    help="Check the limits of this process, such as a server that runs as a service.",
)
@click.option("--config", "file", metavar="FILE", help=FILE_HELP)
@click.option(
    "--emit",
    "emitted",
    type=click.Choice(KINDS),
    help="Print a file that is ready to install: all settings, never below the current values.",
)
@click.option(
    "--url",
    callback=_check_url,
    metavar="URL",
    help="Check the path to a server through its proxies, by publishing and listening there.",
)
@click.option(
    "--publish-url",
    callback=_check_url,
    metavar="URL",
    help="Publish to this address, if the path of --url does not allow publishing.",
)
@click.option(
    "--token",
    envvar=TOKEN_VARIABLES,
    show_envvar=True,
    metavar="TOKEN",
    help="Sent as `Authorization: Bearer`.",
)
@click.option(
    "--topic",
    default=Way.__dataclass_fields__["topic"].default,
    show_default=True,
    metavar="TOPIC",
    help="Prefix of the topics that --url publishes to; below the default prefix a server keeps "
    "events for a minute at most.",
)
@click.option(
    "--watch",
    callback=read_duration,
    default="75s",
    show_default=True,
    metavar="DURATION",
    help="How long --url keeps streams open, to see whether they are closed; 0 skips this check.",
)
@click.option(
    "--verbose", "-v", is_flag=True, help="Show commands also for limits that are sufficient."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def doctor(
    connections: int | None,
    processes: int,
    rate: float,
    own_topics: bool,
    proxied: bool,
    process: str,
    file: str | None,
    emitted: str | None,
    url: str | None,
    publish_url: str | None,
    token: str | None,
    topic: str,
    watch: float,
    verbose: bool,
    as_json: bool,
) -> int:
    """Check the limits of this machine, or the path to a server, for event streams.

    With tls_cert in the configuration, its certificates too: their end, their keys, their names.
    Shows for each limit its value, the needed value, and why; and, if it is too low, how to set it
    (-v: for every limit). Exits with 1 if the target can't be met with the current settings, or if
    the path breaks streams; warnings alone exit with 0. With --emit it exits with 1 only for
    problems that no setting fixes.

    \b
    fastsse doctor --connections 1000000
    fastsse doctor --connections 1000000 --emit sysctl > /etc/sysctl.d/60-fastsse.conf
    fastsse doctor --url https://example.com/events
    """
    if emitted and (url or as_json):
        raise click.UsageError("--emit can't be combined with --url or --json.")
    config = load({}, file).config
    diagnosis = None
    if connections is not None or url is None:
        wanted = connections or DEFAULT_CONNECTIONS
        goal = _goal(wanted, processes, rate, own_topics, proxied, config)
        diagnosis = _examine(process, goal, config)
    if emitted and diagnosis is not None:
        return _emit(emitted, diagnosis)
    evidence: Evidence | None = None
    findings: tuple[Finding, ...] = ()
    pace = TrialTiming(watch_s=watch)
    if url is not None:
        evidence = _try(Way(url, publish_url or url, token, topic), pace)
        findings = judge(evidence, pace, config.heartbeat)
        if not (topic + "/").startswith(TRIAL_TOPICS):
            click.echo(f"The events of this check stay in the history of {topic}/….", err=True)
    if not verbose:
        diagnosis = None if diagnosis is None else diagnosis.without_idle_commands()
        findings = tuple(map(without_idle_command, findings))
    if as_json:
        click.echo(json.dumps(_as_json(diagnosis, url, evidence, findings), indent=2))
    else:
        _show(diagnosis, url, findings)
    fit = all(finding.verdict is not Verdict.FAIL for finding in findings)
    return 0 if fit and (diagnosis is None or diagnosis.can) else EXIT_FAILED


def _examine(process: str, goal: Goal, config: Config) -> Diagnosis:
    """The limits of this machine, and the certificates of the configuration."""
    diagnosis = examine(read_machine(process=process), goal)
    files = TlsFiles(config.tls_cert, config.tls_key, config.allowed_hosts)
    return replace(diagnosis, findings=(*diagnosis.findings, *examine_certificates(files)))


def _goal(
    connections: int, processes: int, rate: float, own_topics: bool, proxied: bool, config: Config
) -> Goal:
    return Goal(
        connections=connections,
        processes=processes,
        events_per_s=rate,
        own_topics=own_topics,
        proxied=proxied,
        heartbeat_s=config.heartbeat,
        memory_limit_bytes=config.memory_limit,
        max_connections=config.max_connections,
        has_tls=bool(config.tls_cert),
    )


def _emit(kind: str, diagnosis: Diagnosis) -> int:
    """Prints the file to standard output, and other needed steps to standard error."""
    click.echo(emit(kind, diagnosis), nl=False)
    for finding in left_over(kind, diagnosis):
        click.echo(f"Also: {finding.name} is {finding.value}. {finding.how}", err=True)
    return EXIT_FAILED if diagnosis.beyond_settings else 0


def _try(way: Way, pace: TrialTiming) -> Evidence:
    """Runs the check, and shows its progress on standard error if that is a terminal."""
    console = Console(stderr=True)
    shown = console.status("") if console.is_terminal else nullcontext()
    with shown as status:
        report_step = (lambda _: None) if status is None else status.update
        return asyncio.run(try_path(way, pace, report_step))


def _show(diagnosis: Diagnosis | None, url: str | None, findings: Sequence[Finding]) -> None:
    console = Console(file=sys.stdout, highlight=False)
    if diagnosis is not None:
        show_machine(console, diagnosis)
    if url is not None:
        show(console, f"The path to {url}", ("found", "should be"), findings)
        for line, style in summary(findings):
            say(console, line, style)


def _as_json(
    diagnosis: Diagnosis | None, url: str | None, evidence: Evidence | None, findings: Any
) -> dict[str, Any]:
    found: dict[str, Any] = {} if diagnosis is None else machine_json(diagnosis)
    if evidence is not None:
        found["path"] = {
            "url": url,
            "fit": all(finding.verdict is not Verdict.FAIL for finding in findings),
            "findings": findings_json(findings),
            "evidence": asdict(evidence),
        }
    return found
