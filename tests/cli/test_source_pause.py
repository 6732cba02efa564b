"""`fastsse source pause` and `resume`, against a service of several processes."""

import json
import time
from pathlib import Path

from tests.cli.commandline import Ended, called
from tests.docs.servers import Served

RULE = """
[[sources]]
name = "lines"
files = ["%s/*.log"]
place = "%s/places"
topic = "lines"
"""
END_S = 60


def test_a_paused_source_reads_nothing_until_it_is_resumed(tmp_path: Path) -> None:
    file, lines = tmp_path / "f.toml", tmp_path / "a.log"
    file.write_text(RULE.replace("%s", str(tmp_path)))
    lines.write_text("one\n")
    options = f"--workers 2 --console-password sesame --config {file} --store sqlite:{tmp_path}/h"
    served = Served(options, tmp_path, {})
    try:
        _until_kept(served, ["one"])
        paused = _run(served, "source", "pause", "lines", "--json")
        assert [row["state"] for row in json.loads(paused.out)["sources"]] == ["paused"]
        # A read may be under way when it is paused.
        count = next(n for n in range(1, 20) if f"{n}" not in _kept_after(served, lines, n))
        assert "paused" in _run(served, "source", "list").out
        resumed = _run(served, "source", "resume", "lines")
        assert resumed.out.splitlines()[1].split("\t")[2] == "ready"
        _until_kept(served, ["one", *map(str, range(1, count + 1))])
        absent = _run(served, "source", "pause", "others")
        assert (absent.status, "no source of this name" in absent.err) == (1, True)
    finally:
        served.stop()


def _run(served: Served, *arguments: str) -> Ended:
    return called(*arguments, FASTSSE_URL=f"http://{served.address}", FASTSSE_TOKEN="sesame")


def _kept_after(served: Served, lines: Path, number: int) -> list[str]:
    """What is kept when a line was written."""
    with lines.open("a") as output:
        output.write(f"{number}\n")
    _run(served, "source", "list")
    return _kept(served)


def _kept(served: Served) -> list[str]:
    shown = _run(served, "listen", "lines", "--wait", "0", "--from", "earliest")
    return shown.out.split()


def _until_kept(served: Served, wanted: list[str]) -> None:
    end_s = time.monotonic() + END_S
    while (found := _kept(served)) != wanted:
        assert time.monotonic() < end_s, found
        time.sleep(0.1)
