"""Each program of the benchmarks says what it takes, and refuses what it can't use."""

import importlib
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bench import client_publishes, client_streams
from bench.client_rounds import rounds_of
from fastsse.config import Config
from fastsse.server import Server

_README = Path(__file__).parents[2] / "bench" / "README.md"
PROGRAMS = sorted(set(re.findall(r"python -m (bench[.\w]*)", _README.read_text("utf-8"))))


def command_of(program: str) -> click.Command:
    """Its command, which is in `__main__` of a package."""
    module = importlib.import_module(program)
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{program}.__main__")
    found = module.main
    assert isinstance(found, click.Command)
    return found


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_says_what_it_takes(program: str) -> None:
    done = CliRunner().invoke(command_of(program), ["--help"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("Usage: ")
    said = done.output.split("\n\n")[1]
    assert len(said.strip()) > 20, "without a word on what it does"


@pytest.mark.parametrize("program", [client_publishes, client_streams])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["many"], "'many' is not a valid integer"),
        (["0"], "0 is not in the range x>=1"),
        (["--way", "carrier"], "'carrier' is not one of"),
        (["--url", "http://127.0.0.1:9"], "--way and --url belong together"),
        (["3", "4"], "unexpected extra argument"),
    ],
)
def test_what_can_t_be_measured_is_refused(program, words: list[str], said: str) -> None:
    done = CliRunner().invoke(program.main, words)
    assert done.exit_code == 2
    assert said in done.output


async def test_a_way_prints_what_a_publish_costs() -> None:
    config = Config(port=0, drain="0s", allow_anonymous_publish=True)
    async with Server(config) as server:
        [first, *_] = await rounds_of(
            "bench.client_publishes", ("raw",), server.addresses[0], 3, rounds=1
        )
    assert first["raw"] > 0
