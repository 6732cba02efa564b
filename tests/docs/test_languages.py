"""Programs of the guides in other languages: they issue tokens, and publish."""

import asyncio
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
from tests.loopback import LostAnswers

KEY = "of-a-test-0123456789abcdef0123456789abcdef"
GO_MODULE = "github.com/golang-jwt/jwt/v5@v5.3.1"
COMMAND_S = 120


def run(folder: Path, *command: str | Path, **variables: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "FASTSSE_JWT_KEY": KEY, **variables},
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


def go_program() -> str:
    go = shutil.which("go", path=f"{os.environ['PATH']}:/usr/local/go/bin")
    if go is None or "FASTSSE_TEST_ALL" not in os.environ:
        pytest.skip("no Go here, or FASTSSE_TEST_ALL is not set: the first build takes 40 s")
    return go


def php_program() -> str:
    php = shutil.which("php")
    if php is None:
        pytest.skip("no PHP here")
    return php


def by_go(folder: Path, program: str) -> str:
    go = go_program()
    run(folder, go, "mod", "init", "example")
    fetched = subprocess.run(
        [go, "get", GO_MODULE], cwd=folder, capture_output=True, timeout=COMMAND_S, check=False
    )
    if fetched.returncode:
        pytest.skip("the Go module can't be fetched here")
    return run(folder, go, "run", program)


def by_php(folder: Path, program: str) -> str:
    return run(folder, php_program(), program)


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


_PUBLISHERS: dict[str, Callable[[], list[str]]] = {
    "publish.mjs": lambda: [str(NODE)],
    "publish.go": lambda: [go_program(), "run"],
    "publish.php": lambda: [php_program()],
}


@pytest.mark.parametrize("program", _PUBLISHERS)
async def test_a_publish_of_the_guide_whose_answer_is_lost_is_stored_once(
    program: str, tmp_path: Path
) -> None:
    page = blocks_of(ROOT / "docs/guides/publishing.md")
    (text,) = [block.text for block in page if block.file == program]
    (tmp_path / program).write_text(text)
    command = [*_PUBLISHERS[program](), program]
    async with (
        Server(Config(port=0)) as server,
        LostAnswers(server.addresses[0], lost=2) as between,
        httpx.AsyncClient(base_url=server.addresses[0], trust_env=False) as client,
    ):
        said = await asyncio.to_thread(run, tmp_path, *command, FASTSSE_URL=between.url)
        assert between.connections == 3
        kept = (await client.get("/events?topic=orders/7&last=5&wait=0")).json()
        (event,) = kept["events"]
        assert (event["id"], event["data"]) == (said, {"state": "paid"})
        # A request that is wrong is not repeated.
        wrong = text.replace("orders/7", "")
        (tmp_path / program).write_text(wrong)
        with pytest.raises(AssertionError, match="topic"):
            await asyncio.to_thread(run, tmp_path, *command, FASTSSE_URL=between.url)
        assert between.connections == 4
