"""fastsse against the whole conformance suite, once for each store and with two workers."""

import os
from pathlib import Path

import pytest

import tests.conformance  # noqa: F401  (makes the suite importable)

from sse_conformance.adapter import load  # isort: skip
from sse_conformance.run import Options, run  # isort: skip

NODE = Path(__file__).parent.parent.parent / ".venv" / "node" / "node_modules"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("variant", ["", "durable", "workers"])
def test_fastsse_fails_no_check(variant: str) -> None:
    done = run(load("fastsse"), Options(variant=variant, node_modules=os.fspath(NODE)))
    assert [result for result in done.results if result.status == "fail"] == []
    assert done.count("pass") > 95
