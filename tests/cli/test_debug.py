"""What a report of a fault has, and what it never has."""

import os
import signal
import subprocess
import tarfile
import time
from pathlib import Path

from fastsse.cli.debug import without_secrets
from tests.cli.commandline import command, environment
from tests.docs.servers import Served

SECRET = "sesame-of-the-console"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl"


def test_a_dump_has_what_it_says_and_no_secret(tmp_path: Path) -> None:
    served = Served(f"--workers 2 --console-password {SECRET}", tmp_path / "served", {})
    try:
        log = tmp_path / "log"
        log.write_text(f"GET /events?ticket=abc.def&topic=x\nBearer {TOKEN}\nredis://u:pw@h\n")
        archive = tmp_path / "dump.tar.gz"
        done = subprocess.run(
            command(
                ("debug", "dump", "-o", str(archive), "--log", str(log), "--pid", str(os.getpid()))
            ),
            capture_output=True, text=True, timeout=60, check=False,
            env=environment(
                FASTSSE_URL=f"http://{served.address}", FASTSSE_TOKEN=SECRET,
                FASTSSE_CONSOLE_PASSWORD=SECRET,
            ),
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        with tarfile.open(archive) as opened:
            texts = {
                one.name.removeprefix("fastsse-debug/"): opened.extractfile(one).read().decode()  # type: ignore[union-attr]
                for one in opened.getmembers()
            }
        assert archive.stat().st_mode & 0o777 == 0o600
        listed = texts["README.txt"].splitlines()
        assert set(texts) - {"README.txt"} <= set(listed)
        assert listed[-1] == "nothing"
        assert "_live" in texts["stacks.json"]
        assert "fastsse_connections" in texts["metrics.txt"]
        for text in texts.values():
            assert not [one for one in (SECRET, TOKEN, "abc.def", "u:pw") if one in text]
    finally:
        served.stop()


def test_a_dump_of_a_server_that_is_away_names_what_is_missing(tmp_path: Path) -> None:
    archive = tmp_path / "dump.tar.gz"
    done = subprocess.run(
        command(("debug", "dump", "-o", str(archive), "--url", "http://127.0.0.1:1")),
        capture_output=True, text=True, timeout=60, check=False, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0
    assert "missing: stats.json: http://127.0.0.1:1: connection refused." in done.stderr
    assert "missing: log.txt: --log FILE was not given" in done.stderr
    again = subprocess.run(
        command(("debug", "dump", "-o", str(archive))),
        capture_output=True, text=True, timeout=60, check=False, env=environment(),
    )  # fmt: skip
    assert again.returncode == 1
    assert "Traceback" not in again.stderr


def test_a_signal_writes_the_stacks_and_the_server_goes_on(tmp_path: Path) -> None:
    served = Served("", tmp_path / "served", {})
    log = tmp_path / "served" / "log"
    try:
        served._process.send_signal(signal.SIGQUIT)
        until_s = time.monotonic() + 30
        while "most recent call first" not in log.read_text() and time.monotonic() < until_s:
            time.sleep(0.02)
        assert "most recent call first" in log.read_text()
        assert served._process.poll() is None
    finally:
        served.stop()


def test_texts_without_secrets_stay_as_they_are() -> None:
    text = '{"event": "Stream opened.", "topics": ["eyes", "bearer"]}'
    assert without_secrets(text) == text
