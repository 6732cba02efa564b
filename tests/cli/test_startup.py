"""A command imports only what it needs: short ones are called by scripts, once for each thing."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.auth.minting import SECRET
from tests.cli.commandline import environment

ROOT = Path(__file__).parents[2]
NETWORK = ("asyncio", "ssl", "httpx", "redis", "uvloop", "httptools")
SERVER = (
    "fastsse.hub",
    "fastsse.http",
    "fastsse.api",
    "fastsse.worker",
    "fastsse.supervisor",
    "structlog",
)
TOKENS = ("jwt", "cryptography")
LOAD_TOOLS = ("fastsse.swarm", "fastsse.doctor")
NOWHERE = ("--url", "http://127.0.0.1:9", "--patience", "0s")

# The command, what it must not import, and its exit status.
CASES = {
    "version": (
        ("--version",),
        (*NETWORK, *SERVER, *TOKENS, *LOAD_TOOLS, "pydantic", "rich", "fastsse.config"),
        0,
    ),
    "mint": (
        ("token", "mint", "--subscribe", "a", "--key", SECRET),
        (*NETWORK, *SERVER, *TOKENS, *LOAD_TOOLS, "rich", "fastsse.auth.guard", "fastsse._core"),
        0,
    ),
    "publish": (
        ("publish", *NOWHERE, "topic", "data"),
        (*SERVER, *TOKENS, *LOAD_TOOLS, "pydantic", "redis", "rich", "uvloop", "fastsse._core"),
        3,
    ),
}
PROGRAM = """
import sys
from fastsse.cli import main
status = main(sys.argv[1:])
print(*sorted(sys.modules), sep="\\n", file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.parametrize("name", CASES)
def test_a_short_command_imports_only_what_it_needs(name: str) -> None:
    arguments, heavy, status = CASES[name]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    loaded = set(done.stderr.splitlines())
    assert "fastsse.cli" in loaded
    assert not loaded & set(heavy)


def test_every_name_of_the_lists_exists() -> None:
    """A module that was renamed would be missing from `sys.modules` for ever."""
    names = {name for _, heavy, _ in CASES.values() for name in heavy}
    program = (
        "import importlib.util as u, sys; print([n for n in sys.argv[1:] if not u.find_spec(n)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *sorted(names)],
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "[]\n"
