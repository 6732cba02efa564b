"""`fastsse debug`: what a report of a fault needs, in one file without secrets."""

import io
import json
import re
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from fastsse.cli.admincommand import AdminClient
from fastsse.cli.clientoptions import server_address
from fastsse.cli.flags import FILE_HELP
from fastsse.client.errors import ClientError
from fastsse.config import catalogue, load
from fastsse.facts import build_facts

__all__ = ["debug"]

_LOG_BYTES: Final = 1024 * 1024
# What a log line may have of a client's secrets, though the server writes none.
_SECRETS: Final = (
    re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*"),
    re.compile(r"(?i)(?<=bearer )\S+"),
    re.compile(r"(?i)(?<=authorization=)[^&\s\"]+|(?<=ticket=)[^&\s\"]+"),
    re.compile(r"(?<=://)[^/@\s:]+:[^/@\s]+(?=@)"),
)
_OF_PROCESS: Final = ("limits", "status", "net/sockstat", "net/netstat")
_KERNEL: Final = (
    "sys/kernel/osrelease",
    "sys/fs/file-nr",
    "sys/net/core/somaxconn",
    "sys/net/ipv4/tcp_mem",
    "sys/net/ipv4/tcp_wmem",
    "sys/net/ipv4/ip_local_port_range",
    "meminfo",
    "loadavg",
)


@click.group()
def debug() -> None:
    """Gather what a report of a fault needs.

    \b
    fastsse debug dump --log fastsse.log
    """


@debug.command()
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The archive.  [default: fastsse-debug-TIME.tar.gz]",
)
@click.option("--config", "file", metavar="FILE", help=FILE_HELP)
@click.option(
    "--log",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The server's log, of which the last MiB is taken.",
)
@click.option("--pid", type=click.IntRange(1), metavar="PID", help="The server's process.")
@server_address
def dump(
    output: Path | None,
    file: str | None,
    log: Path | None,
    pid: int | None,
    url: str,
    uds: str | None,
    token: str | None,
) -> int:
    """Write an archive: configuration, statistics, metrics, stacks, limits, the end of the log.

    Secrets are left out: values of secret options are masked, and tokens in the log are removed.
    The archive has names of topics and addresses only as far as the log has them. What can't be
    read is named in README.txt of the archive. The token needs the claim fastsse.console.
    """
    name = output or Path(time.strftime("fastsse-debug-%Y%m%d-%H%M%S.tar.gz"))
    with AdminClient(url, uds, token) as client:
        parts = _gathered(file, log, pid, client)
    missing = {part: made for part, made in parts.items() if isinstance(made, Exception)}
    lines = [f"{part}: {_one_line(made)}" for part, made in missing.items()]
    not_named = [("log.txt", "--log FILE", log), ("process", "--pid PID", pid)]
    lines += [f"{part}: {option} was not given" for part, option, given in not_named if not given]
    found = {part: made for part, made in parts.items() if isinstance(made, str)}
    readme = ["What is here:", *found, "", "What could not be read:", *(lines or ["nothing"])]
    try:
        with tarfile.open(name, "x:gz") as archive:
            for part, text in {"README.txt": "\n".join(readme) + "\n", **found}.items():
                _add(archive, part, without_secrets(text))
    except OSError as error:
        raise click.ClickException(f"{name}: {error.strerror or error}.") from None
    name.chmod(0o600)
    click.echo(name)
    for part in ("README.txt", *found):
        click.echo(f"  {part}")
    for line in lines:
        click.echo(f"  missing: {line}", err=True)
    return 0


def _gathered(
    file: str | None, log: Path | None, pid: int | None, client: AdminClient
) -> dict[str, str | Exception]:
    """Each part of the archive, or why it could not be read."""
    parts = {"version.json": lambda: _json(build_facts()), "config.json": lambda: _options(file)}
    for path in _KERNEL:
        parts[f"kernel/{path.replace('/', '.')}"] = _reading(Path("/proc") / path)
    for path in _OF_PROCESS if pid is not None else ():
        parts[f"process/{path.replace('/', '.')}"] = _reading(Path(f"/proc/{pid}") / path)
    if log is not None:
        parts["log.txt"] = lambda: _tail(log)
    for part in ("stats", "admin/stacks", "admin/sources", "admin/log-level", "admin/history"):
        parts[f"{part.replace('admin/', '')}.json"] = _asking(client, part)
    parts["metrics.txt"] = lambda: client.text("/metrics")
    return {part: _attempt(make) for part, make in parts.items()}


def _attempt(make: Callable[[], str]) -> str | Exception:
    try:
        return make()
    except (OSError, ClientError, ValueError) as error:
        return error


def _asking(client: AdminClient, part: str) -> Callable[[], str]:
    return lambda: _json(client.ask(f"/{part}"))


def _reading(path: Path) -> Callable[[], str]:
    return lambda: path.read_text("utf-8", "replace")


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(0, io.SEEK_END)
        file.seek(max(0, file.tell() - _LOG_BYTES))
        return file.read().decode(errors="replace")


def _options(file: str | None) -> str:
    """All options, secret ones masked, as `config show` shows them."""
    config = load({}, file).config
    return _json({name: one.show(getattr(config, name)) for name, one in catalogue().items()})


def without_secrets(text: str) -> str:
    """A text without tokens, tickets and passwords of URLs."""
    for pattern in _SECRETS:
        text = pattern.sub("[removed]", text)
    return text


def _one_line(error: Exception) -> str:
    return str(error).replace("\n", " ")


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _add(archive: tarfile.TarFile, name: str, text: str) -> None:
    content = text.encode()
    entry = tarfile.TarInfo(f"fastsse-debug/{name}")
    entry.size, entry.mtime = len(content), int(time.time())
    archive.addfile(entry, io.BytesIO(content))
