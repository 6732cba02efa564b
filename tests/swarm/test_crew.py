"""A run of several processes: what they share out, count together, refuse and leave behind."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fastsse.swarm import Crew, OpenLoop, Plan, Refusal, Schedule, SwarmResults
from fastsse.swarm import machine_limits as limits_module
from fastsse.swarm.plan import shares_of
from fastsse.swarm.request_template import request_head, split_at_numbers
from tests.swarm.conftest import ROOT, wait_for

TIMEOUT_S = 60


def children_of(process: int) -> list[int]:
    return [int(x) for x in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def test_every_event_reaches_every_connection_of_every_process(peer: str) -> None:
    plan = Plan(url=peer, connections=300, topics=("all",), processes=3)
    with Crew(plan) as crew:
        assert crew.wait_until_settled(TIMEOUT_S)
        published = OpenLoop(Schedule(url=peer, topics=("all",), rate=200, duration_s=0.5)).run()
        assert crew.wait_for_events(100 * 300, TIMEOUT_S)
        figures = crew.figures()
    assert published["events_accepted"] == 100
    assert figures["streams"] == figures["stream"] == 300
    assert figures["events"] == figures["counted"] == figures.measures["latency"].count == 30_000
    assert [figures[name] for name in ("lost", "repeated", "late", "id_disordered")] == [0] * 4
    assert figures.measures["completion"].count == 3 * 100


def test_each_connection_hears_its_own_topic_and_the_shared_one(peer: str) -> None:
    plan = Plan(url=peer, connections=20, topics=("own/{n}", "shared"), processes=2)
    topics = [f"own/{n}" for n in range(20)]
    with Crew(plan) as crew:
        assert crew.wait_until_settled(TIMEOUT_S)
        OpenLoop(Schedule(url=peer, topics=topics, rate=400, duration_s=0.1)).run()
        OpenLoop(Schedule(url=peer, topics=("shared",), rate=50, duration_s=0.1)).run()
        assert crew.wait_for_events(40 + 5 * 20, TIMEOUT_S)
        figures = crew.stop()
    assert figures["events"] == 140
    assert figures["lost"] == 0


def test_a_crew_leaves_no_process_behind(peer: str) -> None:
    with Crew(Plan(url=peer, connections=10, processes=2)) as crew:
        assert crew.alive
        (leader,) = children_of(os.getpid())[-1:]
        wait_for(lambda: len(children_of(leader)) == 2)
        workers = children_of(leader)
    assert not crew.alive
    assert not any(Path(f"/proc/{process}").exists() for process in (leader, *workers))


def test_a_killed_leader_takes_its_processes_along(peer: str) -> None:
    with Crew(Plan(url=peer, connections=10, processes=2)) as crew:
        leader = children_of(os.getpid())[-1]
        wait_for(lambda: len(children_of(leader)) == 2)
        workers = children_of(leader)
        os.kill(leader, signal.SIGKILL)
        wait_for(lambda: not any(_is_running(worker) for worker in workers))
        with pytest.raises(Refusal, match="failed"):
            crew.wait_for(lambda: False, TIMEOUT_S)


def _is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_streams_cut_in_every_process_resume(peer: str) -> None:
    with Crew(Plan(url=peer, connections=30, topics=("cut",), processes=3)) as crew:
        assert crew.wait_until_settled(TIMEOUT_S)
        crew.cut(25)
        assert crew.wait_for(lambda: crew.counters()["resumed"] == 25, TIMEOUT_S)
        assert crew.counters()["cut"] == 25


def test_the_difference_of_two_looks_is_what_happened_between(peer: str) -> None:
    schedule = Schedule(url=peer, topics=("diff",), rate=100, duration_s=0.1)
    with Crew(Plan(url=peer, connections=5, topics=("diff",))) as crew:
        assert crew.wait_until_settled(TIMEOUT_S)
        looks: list[SwarmResults] = [crew.figures()]
        for run in (1, 2):
            OpenLoop(schedule).run()
            assert crew.wait_for_events(run * 50, TIMEOUT_S)
            looks.append(crew.figures())
    second = looks[2] - looks[1]
    assert (second["events"], second["stream"], second["streams"]) == (50, 5, 0)
    assert second.measures["latency"].count == 50


def test_connections_are_numbered_once_over_all_processes() -> None:
    shares = shares_of(Plan(url="http://127.0.0.1:9", connections=10, processes=3))
    numbers = [s.first_number + i for s in shares for i in range(s.connections)]
    assert numbers == list(range(10))


def test_a_loopback_target_is_reached_from_as_many_addresses_as_it_takes() -> None:
    (share,) = shares_of(Plan(url="http://127.0.0.1:9", connections=10_000))
    assert len(set(share.sources)) == 3


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"connections": 10**9}, "Raise it: sysctl fs.file-max|--connections|--processes"),
        ({"connections": 30_000, "processes": 1}, "--processes 2 or more"),
        ({"connections": 30_000, "sources": ("127.0.1.1",)}, "--sources"),
        ({"sources": ("127.0.1.300",)}, "127.0.1.300"),
        ({"sources": ("::1",)}, "not of the same family"),
        ({"sources": ("127.0.0.0/8",)}, "at most"),
        ({"url": "http://192.0.2.1/"}, "--i-own-this-target"),
        ({"url": "https://127.0.0.1/"}, "not an http:// URL"),
        ({"url": "127.0.0.1:80"}, "not an http:// URL"),
        ({"url": "http://127.0.0.1:99999"}, "can't be resolved"),
        ({"connections": 0}, "at least 1"),
        ({"slow_share": 1.5}, "--slow"),
        ({"churn_rate": -1}, "negative"),
        ({"cpus": (4096,)}, "--cpus 4096"),
        ({"headers": (("X", "a\r\nb"),)}, "line break"),
    ],
)
def test_what_cannot_be_carried_is_refused_with_what_to_change(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], says: str
) -> None:
    monkeypatch.setattr(limits_module, "fds_a_process", lambda: 20_000)
    monkeypatch.setattr(limits_module, "ports_a_source", lambda: 28_232)
    plan: dict[str, object] = {"url": "http://127.0.0.1:9", "connections": 10, **changes}
    with pytest.raises(Refusal, match=says):
        Crew(Plan(**plan))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "has no tokens"),
        (b"a\n\nb\n", "line 2"),
        (b"a\nb c\n", "line 2"),
        (b"a\0\n", "line 1"),
    ],
)
def test_a_file_without_a_token_in_each_line_is_refused(
    tmp_path: Path, text: bytes, says: str
) -> None:
    path = tmp_path / "tokens"
    plan = Plan(url="http://127.0.0.1:9", connections=1, tokens_path=str(path))
    with pytest.raises(Refusal, match="can't be read: No such file"):
        Crew(plan)
    path.write_bytes(text)
    with pytest.raises(Refusal, match=says):
        Crew(plan)


def test_a_run_that_needs_more_memory_than_there_is_says_how_many_would_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits_module, "_available_bytes", lambda: 8352 * 100)
    with pytest.raises(Refusal, match="--connections 100 or fewer"):
        limits_module.check(200, 1, 1, both_ends=True)


def test_numbers_go_where_the_marks_stand() -> None:
    url = urlsplit("http://127.0.0.1:9/s/{n}/x?a=%7Bn%7D&b=100%25")
    head = request_head(url, ("a b&{n%7}",), (("X-User", "u{n}"),))
    assert head.startswith(b"GET /s/{n}/x?a={n}&b=100%25&topic=a+b%26{n%7} HTTP/1.1\r\n")
    pieces = split_at_numbers(head)
    assert [modulus for _, modulus in pieces] == [0, 0, 7, 0, 0]
    assert b"".join(text for text, _ in pieces) == head.replace(b"{n}", b"").replace(b"{n%7}", b"")


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fastsse", "swarm", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )


def test_the_command_reports_what_its_streams_got(peer: str, tmp_path: Path) -> None:
    # For as long as the command takes to start and to run.
    loop = OpenLoop(Schedule(url=peer, topics=("cli",), rate=50, duration_s=3600))
    publisher = threading.Thread(target=loop.run)
    publisher.start()
    try:
        result = run_command(
            *(peer, "--topic", "cli", "-c", "50", "--duration", "1s"),
            *("--slow", "10%", "--churn", "20/s", "--json", str(tmp_path / "out.json")),
        )
    finally:
        loop.stop()
        publisher.join()
    assert result.returncode == 0, result.stderr
    assert "latency (due → read)" in result.stdout
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["connections"]["slow"] == 5
    # An event that was due before a visitor came is a replay to that visitor, not late.
    timed = found["measures"]["latency"]["count"] + found["counters"]["replayed"]
    assert timed == found["counters"]["counted"] > 0
    assert sum(found["faults"].values()) == 0
    assert found["counters"]["churned"] >= 10
    assert found["machine"]["kernel"] == os.uname().release


def test_the_command_writes_only_json_to_standard_output_when_asked(peer: str) -> None:
    result = run_command(peer, "--topic", "x", "-c", "5", "-d", "100ms", "--json", "-")
    assert json.loads(result.stdout)["connections"] == {"stream": 5}


def test_the_command_refuses_in_one_line_with_status_2() -> None:
    result = run_command("http://192.0.2.1/", "-c", "5")
    assert (result.returncode, len(result.stderr.strip().splitlines())) == (2, 1)
    assert "--i-own-this-target" in result.stderr
    assert run_command("http://127.0.0.1:9", "--slow", "ten").returncode == 2


def test_the_command_fails_when_no_stream_opened() -> None:
    result = run_command("http://127.0.0.1:9", "-c", "5", "-d", "100ms")
    assert result.returncode == 1
    assert "refused" in result.stdout
