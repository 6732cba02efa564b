"""`make bench` in small: cases start their servers, deliver everything and write their figures."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import endings
from tests.redis.server import program
from tests.swarm.conftest import ROOT

PARTS = {
    "fan-out": ("steady", "ladder", "own-topics", "idle-own", "slow", "neighbour"),
    "streams": ("connect", "resume", "churn", "subscribe-token", "workers-deliver"),
    "publishing": (
        *("publish-ndjson", "publish-token", "publish-16", "publish-kinds"),
        *(("publish-redis", "redis-ceiling", "nodes-in-reach") if program() else ()),
    ),
}


#: Of a part, on a busy machine.
PATIENCE_S = 540


def run_bench(*words: str) -> tuple[int, str]:
    """The exit status and the output of `python -m bench`. What it has started ends with it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", *words],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    endings.watch(process.pid)
    try:
        output, _ = process.communicate(timeout=PATIENCE_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        endings.forget(process.pid)
    return process.returncode, output


@pytest.mark.timeout(PATIENCE_S + 60)
@pytest.mark.parametrize("part", PARTS)
def test_the_benchmarks_run_and_lose_nothing(tmp_path: Path, part: str) -> None:
    path, cases = tmp_path / "bench.json", PARTS[part]
    status, output = run_bench("--quick", "--json", str(path), *cases)
    assert status == 0, output
    page = path.with_suffix(".html").read_text()
    assert page.endswith("</html>")
    assert "<svg" in page or part != "fan-out"
    found = json.loads(path.read_text())
    results = {result["name"]: result for result in found["results"]}
    assert set(results) == set(cases)
    for result in results.values():
        for sample in result["samples"] if result["is_fan_out"] else ():
            assert sample["delivered"] == sample["expected"] > 0
            assert sample["lost"] == sample["repeated"] == sample["disordered"] == 0
    for name, figure in (("steady", "bare_cpu_us"), ("connect", "a_second")):
        assert name not in results or results[name]["samples"][0][figure] > 0
    if part == "publishing":
        assert results["publish-ndjson"]["samples"][0]["refused"] == 0
    assert found["environment"]["kernel"]
    assert "what is promised" in output
