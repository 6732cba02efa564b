"""`make bench` in small: cases start their servers, deliver everything and write their figures."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.redis.server import program
from tests.swarm.conftest import ROOT

CASES = (
    *("steady", "ladder", "own-topics", "idle-own", "connect", "resume", "churn"),
    *("publish-ndjson", "subscribe-token", "publish-token", "workers-deliver"),
    *("slow", "neighbour"),
    *(("publish-redis", "nodes-in-reach") if program() else ()),
)


@pytest.mark.timeout(300)
def test_the_benchmarks_run_and_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--json", str(path), *CASES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "<svg" in path.with_suffix(".html").read_text()
    found = json.loads(path.read_text())
    results = {result["name"]: result for result in found["results"]}
    assert set(results) == set(CASES)
    for result in results.values():
        for sample in result["samples"] if result["is_fan_out"] else ():
            assert sample["delivered"] == sample["expected"] > 0
            assert sample["lost"] == sample["repeated"] == sample["disordered"] == 0
    assert results["steady"]["samples"][0]["bare_cpu_us"] > 0
    assert results["connect"]["samples"][0]["a_second"] > 0
    assert results["publish-ndjson"]["samples"][0]["refused"] == 0
    assert found["environment"]["kernel"]
    assert "what is promised" in done.stdout
