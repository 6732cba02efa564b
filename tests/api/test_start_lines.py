"""A console shows what a new user needs next, in three lines; a log for programs is as it was."""

import os
import pty
import re
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from fastsse.api.startlines import start_lines
from fastsse.config import Config
from fastsse.version import __version__
from tests.cli.commandline import command, environment

LOCAL = "http://127.0.0.1:8080"
TIMEOUT_S = 90


@pytest.mark.parametrize(
    ("admin", "has_page", "places"),
    [
        ([LOCAL], True, f"Page: {LOCAL}/  Metrics: {LOCAL}/metrics"),
        ([LOCAL], False, f"Metrics: {LOCAL}/metrics"),
        (["unix:/run/a", "http://[::1]:1"], True, "Page: http://[::1]:1/  Metrics: http://[::1]:1/metrics"),
        (["unix:/run/a"], True, "Metrics: /metrics on unix:/run/a."),
    ],
)  # fmt: skip
def test_second_line_has_addresses_that_can_be_opened(
    admin: list[str], has_page: bool, places: str
) -> None:
    assert start_lines(Config(), [LOCAL], admin, has_page)[1] == places


def test_lines_name_every_address_the_workers_the_store_and_who_publishes() -> None:
    config = Config(store="redis://me:s3cret@localhost:6379/0", publish_token="t" * 16)
    first, _, third = start_lines(config, [LOCAL, "unix:/run/a"], [LOCAL], True, workers=4)
    assert first == f"fastsse {__version__} is serving on {LOCAL}, unix:/run/a with 4 workers."
    assert third == (
        "Store: redis://me:***@localhost:6379/0. Publishing: with a token. "
        "Ctrl-C drains and ends it."
    )


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_terminal_shows_three_lines_and_ctrl_c_ends_the_server(
    workers: str, tmp_path: Path
) -> None:
    ours, its = pty.openpty()
    arguments = ["serve", "--port", "0", "--workers", workers, "--drain", "0s"]
    server = subprocess.Popen(
        command(arguments), cwd=tmp_path, env=environment(NO_COLOR="1"), stderr=its, stdout=its
    )
    os.close(its)
    try:
        shown = _read_until(ours, "Ctrl-C drains")
        several = " with 2 workers" if workers == "2" else ""
        found = re.search(
            rf"is serving on (http://[\d.:]+){several}\.\n"
            r" +Page: \1/  Metrics: \1/metrics\n"
            r" +Store: memory \(history and durable streams end with it\)\. "
            r"Publishing: by anyone\. Ctrl-C drains and ends it\.\n",
            shown,
        )
        assert found, shown
        server.send_signal(signal.SIGINT)
        assert server.wait(TIMEOUT_S) == 0
    finally:
        server.kill()
        server.wait()
        os.close(ours)


def _read_until(terminal: int, text: str) -> str:
    """What a terminal shows, up to a line with `text`."""
    shown, end_s = "", time.monotonic() + TIMEOUT_S
    while text not in shown or not shown.endswith("\n"):
        ready, _, _ = select.select([terminal], [], [], max(0, end_s - time.monotonic()))
        assert ready, f"no {text!r} in {shown!r}"
        shown += os.read(terminal, 4096).decode().replace("\r\n", "\n")
    return shown
