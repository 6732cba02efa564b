"""Runs that can't be, and ones that must not be: a sentence, exit code 2, no load."""

import pytest

from tests.loadtests.conftest import Result

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize(
    ("run", "says"),
    [
        pytest.param(run, says, marks=pytest.mark.locust_run(run))
        for run, says in {
            "elsewhere": "is not on this machine",
            "too many": "999,999,999 connections need",
            "no server": "--server-command ended with 0",
        }.items()
    ],
)
def test_what_cannot_be_carried_out_is_refused_with_exit_code_2(
    result: Result, run: str, says: str
) -> None:
    assert says in " ".join(result.output.split())
    assert result.exit_code == 2
    assert result.count("sse", "open") == result.count("swarm", "open") == 0
