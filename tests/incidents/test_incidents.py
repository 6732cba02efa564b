"""Each incident fires its alert, is in the console, is named by `fastsse why`, and in the docs."""

import os
import shutil
from pathlib import Path

import pytest

from tests.cli.commandline import ROOT
from tests.incidents.plays import PLAYS, Play, play, section_exists
from tests.incidents.scene import PROMETHEUS, Scene, watching
from tests.redis.server import program

MISSING = {
    "store full": None if os.geteuid() == 0 else "file systems can't be mounted here",
    "Redis gone": None if program() else "no redis-server here",
    "descriptor limit": None if shutil.which("prlimit") else "no prlimit here",
}
pytestmark = [
    pytest.mark.skipif(PROMETHEUS is None, reason="no prometheus here"),
    pytest.mark.timeout(600),
]


@pytest.mark.parametrize("incident", PLAYS, ids=[one.name for one in PLAYS])
async def test_an_incident_is_seen_and_its_cause_is_named(incident: Play, tmp_path: Path) -> None:
    if reason := MISSING.get(incident.name):
        pytest.skip(reason)
    assert section_exists(incident.entry)
    async with watching(tmp_path) as watch:
        scene = Scene(tmp_path, watch)
        try:
            seen = await play(incident, scene)
        finally:
            await scene.close()
    assert seen.why_s < 60


def test_the_guide_lists_every_incident_with_its_alert() -> None:
    rows = (ROOT / "docs" / "guides" / "incidents.md").read_text("utf-8").splitlines()
    for incident in PLAYS:
        (row,) = [row for row in rows if row.startswith(f"| {incident.name} |")]
        assert f"`{incident.alert}`" in row
        assert incident.entry.rpartition("/")[2] in row
