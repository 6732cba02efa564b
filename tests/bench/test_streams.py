"""The benchmark of durable streams runs: small, its figures mean nothing."""

from pathlib import Path

from bench.streams import servers
from bench.streams.appends import append, create, warm_up
from bench.streams.catchup import fill, read
from bench.streams.floor import PARTS, floor
from bench.streams.tails import tail


def test_streams_are_filled_read_appended_to_and_tailed(tmp_path: Path) -> None:
    with servers.fastsse(str(tmp_path), "written", -1) as server:
        fill(server, "log", 3_000_000, 4096)
        assert read(server, "log")[0] == 3_000_000 // 4096 * 4096
        assert create(server, 70) > 0
        warm_up(server, 70)
        rate, cpu_us = append(server, 70, 0.2)
        assert rate > 0
        assert cpu_us >= 0
        found = tail(server, 5, 20, 0.3)
        assert found.delivered == found.expected


def test_the_part_of_sqlite_is_measured_alone(tmp_path: Path) -> None:
    said = floor(tmp_path, [10])
    assert said.startswith("10: ")
    assert all(part in said for part in PARTS)
    assert not list(tmp_path.iterdir())
