"""The programs of the guide on access issue tokens that a server accepts, in each language."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from fastsse.config import Config
from fastsse.server import Server
from tests.docs.blocks import ROOT, blocks_of
from tests.libraries.node import MODULES, NODE

KEY = "of-a-test-0123456789abcdef0123456789abcdef"
GO_MODULE = "github.com/golang-jwt/jwt/v5@v5.3.1"
COMMAND_S = 120


def run(folder: Path, *command: str | Path) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "FASTSSE_JWT_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def by_node(folder: Path, program: str) -> str:
    for name in ("jose", "jsonwebtoken"):
        if not (MODULES / name).is_dir():
            pytest.skip("the packages of tests/node are not installed; `make test-all` does it")
    (folder / "node_modules").symlink_to(MODULES)
    return run(folder, NODE, program)


def by_go(folder: Path, program: str) -> str:
    go = shutil.which("go", path=f"{os.environ['PATH']}:/usr/local/go/bin")
    if go is None or "FASTSSE_TEST_ALL" not in os.environ:
        pytest.skip("no Go here, or FASTSSE_TEST_ALL is not set: the first build takes 40 s")
    run(folder, go, "mod", "init", "example")
    fetched = subprocess.run(
        [go, "get", GO_MODULE], cwd=folder, capture_output=True, timeout=COMMAND_S, check=False
    )
    if fetched.returncode:
        pytest.skip("the Go module can't be fetched here")
    return run(folder, go, "run", program)


def by_php(folder: Path, program: str) -> str:
    php = shutil.which("php")
    if php is None:
        pytest.skip("no PHP here")
    return run(folder, php, program)


def by_python(folder: Path, program: str) -> str:
    return run(folder, sys.executable, program)


@pytest.mark.parametrize(
    ("program", "issue"),
    [
        ("issue.py", by_python),
        ("issue.mjs", by_node),
        ("issue.cjs", by_node),
        ("issue.go", by_go),
        ("issue.php", by_php),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_token_of_the_guide_reads_a_private_event(
    program: str, issue: Callable[[Path, str], str], tmp_path: Path
) -> None:
    page = blocks_of(ROOT / "docs/guides/access.md")
    (text,) = [block.text for block in page if block.file == program]
    (tmp_path / program).write_text(text)
    token = issue(tmp_path, program)
    options = Config(port=0, jwt_key=KEY)
    async with (
        Server(options) as server,
        httpx.AsyncClient(base_url=server.addresses[0], trust_env=False) as client,
    ):
        server.publish("user/7", "for user 7", private=True)
        bearer = {"Authorization": f"Bearer {token}"}
        path = "/events?topic=user/7&last_event_id=earliest"
        async with client.stream("GET", path, headers=bearer) as stream:
            assert stream.status_code == 200, await stream.aread()
            async for line in stream.aiter_lines():
                if line.startswith("data:"):
                    break
            assert line == "data: for user 7"
