"""The benchmark of durable streams runs: small, its figures mean nothing."""

import resource
from pathlib import Path

import pytest

from bench.streams import held, servers
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


def test_tails_are_held_by_several_workers_and_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    monkeypatch.setattr(held, "RESERVE", limit - 20)
    monkeypatch.setattr(held, "UNEVEN", 5)
    said = held.hold(30, 2, 0.1)
    assert said.startswith("30 tails, 2 workers, "), said
    assert ": 60 of 60, p50 " in said, said


def test_the_part_of_sqlite_is_measured_alone(tmp_path: Path) -> None:
    said = floor(tmp_path, [10])
    assert said.startswith("10: ")
    assert all(part in said for part in PARTS)
    assert not list(tmp_path.iterdir())
