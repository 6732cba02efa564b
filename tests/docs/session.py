"""Runs the blocks of a page, in one shell and one folder."""

import os
import re
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests import endings
from tests.cli.commandline import environment
from tests.docs.blocks import ROOT, Block
from tests.docs.servers import Servers, streams_at

BLOCK_S = 30
STREAM_S = 10
BIN = Path(sys.executable).parent
_ADDRESS = re.compile(r"\b(?:127\.0\.0\.1|localhost):8080\b")
_ENDLESS = re.compile(r"curl (?:\S+ )*-\w*N|fastsse listen|fastsse serve|tail -f")
_POSITION = re.compile(r"\b\d{13}-\d+\b")
_SERVES = re.compile(r"fastsse serve\b.*&\s*$|uvicorn\b.*&\s*$", re.MULTILINE)


@dataclass
class Stream:
    """A command that does not end, and what it must have shown by the end of the page."""

    block: Block
    command: str
    shown: list[str]
    output: Path


class Session:
    """One page's shell.

    Arguments:
        servers: gives the servers that blocks ask for.
        folder: an empty one.
    """

    def __init__(self, servers: Servers, folder: Path) -> None:
        self._servers = servers
        self._folder = folder
        self._options = ""
        self._own_port = _free_port()
        self._streams: list[Stream] = []
        self._count = 0
        (folder / ".bin").mkdir()
        program = folder / ".bin" / "fastsse"
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m fastsse "$@"\n')
        program.chmod(0o700)
        (folder / ".curlrc").write_text("silent\nshow-error\nmax-time = 60\n")
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder, env=self._variables(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        endings.watch(self._shell.pid)
        self._say("set -eEuo pipefail")

    def run(self, block: Block) -> None:
        """Runs or checks one. Raises AssertionError."""
        if block.options is not None:
            self._options = block.options
        if block.reason is not None:
            assert len(block.reason) > 3, f"{block}: say why it is not run"
        elif block.file is not None:
            path = self._folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self._text(block))
        elif block.language in ("sh", "bash"):
            self._run_shell(block, self._text(block))
        elif block.language == "console":
            self._run_console(block)
        else:
            _CHECKS.get(block.language, Session._leave)(self, block)

    def end(self) -> None:
        """Looks at what streams have shown. Raises AssertionError."""
        for stream in self._streams:
            ends_s = time.monotonic() + STREAM_S
            while not _begins(stream.shown, stream.output.read_text("utf-8").splitlines()):
                assert time.monotonic() < ends_s, (
                    f"{stream.block}: {stream.command} has shown\n{stream.output.read_text()}"
                )
                time.sleep(0.02)

    def close(self) -> None:
        """Ends all that the page has started."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.close()
        os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.wait()
        endings.forget(self._shell.pid)
        self._shell.stdout.close()

    # What is said to the shell.

    def _variables(self) -> dict[str, str]:
        return environment(
            PATH=f"{self._folder}/.bin:{BIN}:{os.environ['PATH']}",
            HOME=str(self._folder),
            CURL_HOME=str(self._folder),
            FASTSSE_PORT=str(self._own_port),
            PYTHONUNBUFFERED="1",
            NO_COLOR="1",
        )

    def _address(self) -> str:
        if self._options == "alone":
            return f"127.0.0.1:{self._own_port}"
        return self._servers.address(self._options)

    def _text(self, block: Block) -> str:
        if not _ADDRESS.search(block.text) and "fastsse" not in block.text:
            return block.text
        return _ADDRESS.sub(self._address(), block.text)

    def _run_shell(self, block: Block, text: str) -> None:
        self._count += 1
        path = self._folder / f".block{self._count}.sh"
        path.write_text(text)
        url = f"export FASTSSE_URL=http://{self._address()}"
        if "background" in block.words:
            before = self._opened()
            output = self._folder / f".block{self._count}.out"
            output.touch()
            self._say(f"{url}; bash -eu {path} >{output} 2>&1 &", block)
            self._wait_open(block, output, before)
        elif "fails" in block.words:
            self._say(f"{url}; if ( . {path} ); then echo 'did not fail'; exit 9; fi", block)
        else:
            self._say(f"{url}; . {path}", block)
            if _SERVES.search(text):
                self._wait_served(block)

    def _say(self, command: str, block: Block | None = None) -> str:
        """Has the shell run a command, and gives what was printed meanwhile."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        ended = f"::ended {self._count}::"
        self._shell.stdin.write(f"{command}\necho; echo '{ended}'\n".encode())
        self._shell.stdin.flush()
        said = b""
        ends_s = time.monotonic() + BLOCK_S
        with selectors.DefaultSelector() as selector:
            selector.register(self._shell.stdout, selectors.EVENT_READ)
            while ended.encode() not in said:
                left_s = ends_s - time.monotonic()
                assert left_s > 0, f"{block}: takes over {BLOCK_S} s\n{said.decode()}"
                if selector.select(left_s):
                    data = os.read(self._shell.stdout.fileno(), 65536)
                    assert data, f"{block}: failed\n{said.decode()}"
                    said += data
        return said.decode()

    # Console blocks.

    def _run_console(self, block: Block) -> None:
        for command, shown in _commands(self._text(block)):
            self._count += 1
            output = self._folder / f".console{self._count}"
            output.touch()
            path = self._folder / f".console{self._count}.sh"
            path.write_text(command)
            url = f"export FASTSSE_URL=http://{self._address()}"
            if _ENDLESS.search(command) or "background" in block.words:
                before = self._opened()
                self._say(f"{url}; bash -eu {path} >{output} 2>&1 &", block)
                self._streams.append(Stream(block, command, shown, output))
                self._wait_open(block, output, before)
                continue
            fails = "|| true" if "fails" in block.words else ""
            self._say(f"{url}; . {path} >{output} 2>&1 {fails}", block)
            got = output.read_text("utf-8").splitlines()
            assert _same(shown, got), f"{block}: {command} printed\n" + "\n".join(got)

    def _opened(self) -> int:
        return -1 if self._options == "alone" else streams_at(self._address())

    def _wait_open(self, block: Block, output: Path, before: int) -> None:
        """Until the server has one stream more, or the command has said something."""
        ends_s = time.monotonic() + STREAM_S
        while not output.stat().st_size and not streams_at(self._address()) > before >= 0:
            assert time.monotonic() < ends_s, f"{block}: nothing came of it"
            time.sleep(0.02)

    def _wait_served(self, block: Block) -> None:
        ends_s = time.monotonic() + STREAM_S
        host, _, port = self._address().rpartition(":")
        while True:
            with socket.socket() as probe:
                if probe.connect_ex((host, int(port))) == 0:
                    return
            assert time.monotonic() < ends_s, f"{block}: nothing listens on {self._address()}"
            time.sleep(0.02)

    # Other languages.

    def _leave(self, block: Block) -> None:
        """Nothing to run."""

    def _run_program(self, block: Block, suffix: str, command: str) -> None:
        self._count += 1
        path = self._folder / f"block{self._count}{suffix}"
        path.write_text(self._text(block))
        self._run_shell(block, f"{command} {shlex.quote(path.name)}\n")

    def _run_python(self, block: Block) -> None:
        runner = f"{shlex.quote(sys.executable)} {ROOT / 'tests/docs/pyblock.py'}"
        self._run_program(block, ".py", runner)

    def _check_toml(self, block: Block) -> None:
        self._run_program(block, ".toml", "fastsse config check --config")

    def _check_json(self, block: Block) -> None:
        check = "import sys, json; t = open(sys.argv[1]).read()\n"
        check += "try: json.loads(t)\nexcept ValueError: [json.loads(l) for l in t.splitlines()]"
        self._run_program(block, ".json", f"{shlex.quote(sys.executable)} -c {shlex.quote(check)}")

    def _check_js(self, block: Block) -> None:
        self._run_program(block, ".mjs", "node" if "node" in block.words else "node --check")

    def _check_nginx(self, block: Block) -> None:
        """`nginx -t`; a `server` or `location` is put where it belongs."""
        text = self._text(block)
        if not re.search(r"^\s*server\s*\{", text, re.MULTILINE):
            text = "server {\nlisten 127.0.0.1:1;\n" + text + "}\n"
        if not re.search(r"^\s*http\s*\{", text, re.MULTILINE):
            text = "http {\naccess_log off;\n" + text + "}\n"
        if not re.search(r"^\s*events\b", text, re.MULTILINE):
            text = f"events {{}}\npid {self._folder}/nginx.pid;\n" + text
        path = self._folder / f".nginx{self._count}.conf"
        path.write_text(text)
        check = f"nginx -t -q -e stderr -p {self._folder} -c {path}\n"
        self._run_shell(block, f"PATH=$PATH:/usr/sbin\nif command -v nginx; then {check}fi\n")

    def _check_haproxy(self, block: Block) -> None:
        path = self._folder / f".haproxy{self._count}.cfg"
        path.write_text(self._text(block))
        check = f"haproxy -c -q -f {path}\n"
        self._run_shell(block, f"PATH=$PATH:/usr/sbin\nif command -v haproxy; then {check}fi\n")


_CHECKS = {
    "python": Session._run_python,
    "toml": Session._check_toml,
    "json": Session._check_json,
    "js": Session._check_js,
    "mjs": Session._check_js,
    "nginx": Session._check_nginx,
    "haproxy": Session._check_haproxy,
}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _commands(text: str) -> list[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines shown under it."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif not found:
            raise AssertionError(f"a console block begins with `$ `, not with {line!r}")
        elif found[-1][0].endswith("\\") and not found[-1][1]:
            found[-1] = (f"{found[-1][0]}\n{line.removeprefix('> ')}", [])
        else:
            found[-1][1].append(line)
    return found


def _plain(lines: list[str]) -> list[str]:
    lines = [_POSITION.sub("POSITION", line).rstrip() for line in lines]
    while lines and not lines[-1]:
        lines = lines[:-1]
    return lines


def _pattern(shown: list[str]) -> str:
    parts = []
    for line in _plain(shown):
        if line.strip() == "…":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(".*?".join(map(re.escape, line.split("…"))) + r"\n")
    return "".join(parts)


def _same(shown: list[str], got: list[str]) -> bool:
    text = "".join(f"{line}\n" for line in _plain(got))
    return re.fullmatch(_pattern(shown), text) is not None


def _begins(shown: list[str], got: list[str]) -> bool:
    text = "".join(f"{line}\n" for line in _plain(got))
    return re.match(_pattern(shown), text) is not None
