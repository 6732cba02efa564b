"""The containers of `deploy/compose.yaml` get what the program and the proxy take, and the same as
the plain processes of `deploy/cluster.py`."""

import asyncio
import pathlib
import re
import shutil
import tomllib

import pytest

from fastsse.config import Config
from fastsse.units import parse_duration_s
from tests.cli.commandline import command, environment
from tests.deploy.test_cluster import PATH

ROOT = pathlib.Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = (DEPLOY / "compose.yaml").read_text()


def variables(text: str, names: str) -> dict[str, str]:
    """`NAME: value` of the environments there; what only an operator knows is made up."""
    found = re.findall(rf'^ +({names}): "?(.+?)"?$', text, re.MULTILINE)
    return {name: re.sub(r"\$\{.*\}", "made-up", value) for name, value in found}


async def run(*arguments: str, **values: str) -> tuple[int | None, str]:
    running = await asyncio.create_subprocess_exec(
        *arguments,
        env=environment(PATH=PATH, **values),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await running.communicate()
    return running.returncode, output.decode()


async def test_a_node_s_environment_is_a_configuration_without_doubts() -> None:
    image = dict(re.findall(r"(FASTSSE_\w+)=(\S+)", (DEPLOY / "Dockerfile").read_text()))
    image.pop("FASTSSE_PUBLISH_TOKEN")  # Only in the comment on how to run it.
    given = variables(COMPOSE, r"FASTSSE_\w+")
    assert {"FASTSSE_STORE", "FASTSSE_PUBLISH_TOKEN"} <= given.keys()
    code, said = await run(*command(["config", "check"]), **image | given)
    assert (code, said) == (0, "The configuration is valid.\n")


def test_containers_are_given_the_time_that_a_drain_takes() -> None:
    grace = re.search(r"stop_grace_period: (\w+)", COMPOSE)
    assert grace is not None
    assert parse_duration_s(grace[1]) > Config().drain


@pytest.mark.skipif(shutil.which("haproxy", path=PATH) is None, reason="no haproxy here")
async def test_the_proxy_takes_the_configuration_of_the_containers(tmp_path: pathlib.Path) -> None:
    assert "./compose-haproxy.cfg:/usr/local/etc/haproxy/haproxy.cfg:" in COMPOSE
    assert "./retry.http:/usr/local/etc/haproxy/retry.http:" in COMPOSE
    text = (DEPLOY / "compose-haproxy.cfg").read_text()
    # That path is in its image.
    assert "/usr/local/etc/haproxy/retry.http" in text
    path = tmp_path / "haproxy.cfg"
    path.write_text(text.replace("/usr/local/etc/haproxy", str(DEPLOY)))
    code, said = await run("haproxy", "-c", "-f", str(path))
    assert code == 0, said


def test_redis_keeps_in_a_container_what_it_keeps_as_a_process() -> None:
    asked = re.search(r"command: redis-server (.*)", COMPOSE)
    assert asked is not None
    process = (DEPLOY / "cluster.py").read_text()
    for name, value in re.findall(r"(--\S+) (\S+)", asked[1]):
        assert f'"{name}", "{value}"' in process


def test_the_image_runs_the_program_that_the_package_installs() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    image = (DEPLOY / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["/opt/fastsse/bin/fastsse"]' in image
    assert "fastsse" in scripts
    for path in re.findall(r"\./(\S+?):", COMPOSE):
        assert (DEPLOY / path).is_file()
