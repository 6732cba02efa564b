"""The protocol's client in Go appends as a producer and reads in every way.

Its module comes from Go's proxy, or from the folder that FASTSSE_TEST_STREAMS_GO names: a copy of
`packages/client-go`. Without both the test is skipped.
"""

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fastsse.server import Server

MODULE = "github.com/durable-streams/durable-streams/packages/client-go"
GO = shutil.which("go")
WORDS = 400
WHOLE = "".join(f"word-{n} " for n in range(WORDS)) + "end"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if GO is None:
        pytest.skip("no go here")
    folder = tmp_path_factory.mktemp("go")
    shutil.copy(Path(__file__).parent / "go" / "main.go", folder)
    copy = os.environ.get("FASTSSE_TEST_STREAMS_GO")
    replace = f"require {MODULE} v0.0.0\nreplace {MODULE} => {copy}\n" if copy else ""
    (folder / "go.mod").write_text(f"module fastsse.invalid/words\n\ngo 1.21\n\n{replace}")
    if not copy and (failed := _go(folder, "get", f"{MODULE}@latest")):
        pytest.skip(f"the module of the client can't be fetched: {failed.splitlines()[-1]}")
    assert _go(folder, "build", "-o", "words", ".") == ""
    return folder / "words"


def _go(folder: Path, *arguments: str) -> str:
    """What it says when it fails."""
    done = subprocess.run([GO, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


@pytest.mark.timeout(180)
@pytest.mark.parametrize("live", ["", "long-poll", "sse"])
async def test_the_go_client_reads_what_its_producer_appended(
    server: Server, program: Path, live: str
) -> None:
    url = f"{server.addresses[0]}/streams/go"
    process = await asyncio.create_subprocess_exec(
        *(program, url, live, str(WORDS)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
    assert output.decode() == WHOLE
