"""What `deploy/` says is what the program does."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fastsse.cli.flags import OptionFlag
from fastsse.cli.serve import serve
from fastsse.config import Config
from fastsse.supervisor.supervisor import END_GRACE_S
from fastsse.units import parse_duration_s
from fastsse.worker import DRAIN_GRACE_S
from tests.cli.commandline import called

DEPLOY = Path(__file__).parents[2] / "deploy"
FLAGS = {name for one in serve.params if isinstance(one, OptionFlag) for name in one.opts}


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / name)
    return parser


def test_unit_gives_a_drain_the_time_that_it_needs() -> None:
    stop_s = parse_duration_s(unit("fastsse.service")["Service"]["TimeoutStopSec"])
    assert stop_s > Config().drain + max(DRAIN_GRACE_S, END_GRACE_S)


def test_unit_starts_with_flags_that_there_are() -> None:
    flags = set(re.findall(r"(--[a-z-]+)", unit("fastsse.service")["Service"]["ExecStart"]))
    assert flags - {"--config"} <= FLAGS


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_understands_the_units() -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", DEPLOY / "fastsse.service", DEPLOY / "fastsse.socket"],
        capture_output=True,
        text=True,
        check=False,
    )
    unexpected = [line for line in done.stderr.splitlines() if "is not executable" not in line]
    assert unexpected == []


def credentials() -> str:
    guide = (DEPLOY.parent / "docs" / "guides" / "systemd.md").read_text()
    block = re.search(r"```ini\n(.*?)```", guide, re.DOTALL)
    assert block is not None
    return block[1]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_understands_the_credentials_of_the_guide(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "fastsse.service", tmp_path)
    (tmp_path / "fastsse.service.d").mkdir()
    (tmp_path / "fastsse.service.d" / "credentials.conf").write_text(credentials())
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "fastsse.service"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    unexpected = [line for line in done.stderr.splitlines() if "is not executable" not in line]
    assert unexpected == []


def test_options_take_the_credentials_of_the_guide_as_paths(tmp_path: Path) -> None:
    text = credentials()
    loaded = set(re.findall(r"^LoadCredential=([\w.]+):/", text, re.MULTILINE))
    variables = dict(re.findall(r"(FASTSSE_\w+)=%d/([\w.]+)", text))
    assert set(variables.values()) == loaded
    assert all(hasattr(Config(), name.removeprefix("FASTSSE_").lower()) for name in variables)
    key = tmp_path / variables["FASTSSE_JWT_KEY"]
    absent = called("config", "check", FASTSSE_JWT_KEY=str(key))
    assert (absent.status, "must be a file that can be read" in absent.err) == (2, True), absent
    key.write_text("k" * 32)
    assert called("config", "check", FASTSSE_JWT_KEY=str(key)).status == 0


def test_image_runs_as_a_plain_user() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users
    assert users[-1].split(":")[0] not in ("0", "root")
