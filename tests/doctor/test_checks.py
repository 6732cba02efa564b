"""Each check says what is, what is needed, and whether the target can be met with it."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from fastsse.cgroups import Cgroup
from fastsse.doctor import Diagnosis, Finding, Goal, Machine, Verdict, examine, read_machine
from fastsse.doctor.goal import descriptors_for, streams_of
from fastsse.doctor.machine import UNLIMITED
from fastsse.limits import STREAMS_DEFAULT_MAX
from tests.doctor.machines import GIB, LIMITS, PLAIN, made_up

# Nothing stands in the way of a million on this one.
LARGE = Machine(
    fd_soft=1024,
    fd_hard=2_097_152,
    nr_open=4_194_304,
    file_max=10_000_000,
    files_open=2000,
    somaxconn=65_535,
    syn_backlog=65_535,
    syncookies=1,
    tcp_mem_pages=(3_000_000, 4_000_000, 6_000_000),
    tcp_rmem_bytes=(4096, 131_072, 6_291_456),
    tcp_wmem_bytes=(4096, 16_384, 4_194_304),
    notsent_lowat_bytes=2**32 - 1,
    ports=(32_768, 60_999),
    memory_bytes=64 * GIB,
    memory_available_bytes=60 * GIB,
    cores=8,
)
MILLION = Goal(1_000_000)


def finding(machine: Machine, goal: Goal, name: str) -> Finding:
    return next(found for found in examine(machine, goal).findings if found.name == name)


def verdict(machine: Machine, goal: Goal, name: str) -> Verdict:
    return finding(machine, goal, name).verdict


def names(diagnosis: Diagnosis, verdict: Verdict) -> set[str]:
    return {found.name for found in diagnosis.findings if found.verdict is verdict}


def test_a_large_machine_carries_a_million() -> None:
    diagnosis = examine(LARGE, MILLION)
    assert diagnosis.can
    assert names(diagnosis, Verdict.OK) == {found.name for found in diagnosis.findings}
    assert diagnosis.narrowest is not None
    assert (diagnosis.narrowest.carries or 0) >= 1_000_000


def test_each_finding_says_all_four_things() -> None:
    for machine in (LARGE, Machine(), Machine(cgroup=Cgroup(GIB, 5, 1.0), conntrack_loaded=True)):
        for found in examine(machine, MILLION).findings:
            assert found.value, found.name
            assert found.needed, found.name
            assert found.why, found.name
            assert found.how, found.name


BUSY_PLACE = replace(
    LARGE,
    conntrack_loaded=True,
    conntrack_max=5_000_000,
    conntrack_count=9,
    tcp_wmem_bytes=(4096, 65_536, 16_777_216),
    tcp_rmem_bytes=(4096, 131_072, 33_554_432),
    notsent_lowat_bytes=262_144,
)


@pytest.mark.parametrize("goal", [Goal(1), Goal(10_000), MILLION, Goal(10_000, proxied=True)])
def test_no_command_of_what_is_well_lowers_it(goal: Goal) -> None:
    """It lowered fs.nr_open and tcp_mem of a machine that was prepared for more."""
    now = {
        "fs.nr_open": (BUSY_PLACE.nr_open,),
        "fs.file-max": (BUSY_PLACE.file_max,),
        "net.core.somaxconn": (BUSY_PLACE.somaxconn,),
        "net.ipv4.tcp_max_syn_backlog": (BUSY_PLACE.syn_backlog,),
        "net.ipv4.tcp_mem": BUSY_PLACE.tcp_mem_pages,
        "net.ipv4.tcp_wmem": BUSY_PLACE.tcp_wmem_bytes,
        "net.ipv4.tcp_rmem": BUSY_PLACE.tcp_rmem_bytes,
        "net.ipv4.tcp_notsent_lowat": (BUSY_PLACE.notsent_lowat_bytes,),
        "net.netfilter.nf_conntrack_max": (BUSY_PLACE.conntrack_max,),
        "LimitNOFILE": (BUSY_PLACE.fd_hard,),
        "--max-connections": (0,),
    }
    seen = set()
    for found in examine(BUSY_PLACE, goal).findings:
        if found.verdict is not Verdict.OK:
            continue
        for name, values in re.findall(r'([\w.-]+)[= ]"?((?:\d+ ?)+)', found.how):
            if name in now:
                seen.add(name)
                asked = tuple(map(int, values.split()))
                assert all(map(int.__ge__, asked, now[name])), found.how  # type: ignore[arg-type]
    assert {"fs.nr_open", "net.ipv4.tcp_mem", "LimitNOFILE"} <= seen


def test_only_what_is_not_well_carries_a_command() -> None:
    diagnosis = examine(replace(LARGE, somaxconn=128, nr_open=None), MILLION)
    for found in diagnosis.without_idle_commands().findings:
        assert bool(found.how) == (found.verdict in (Verdict.WARN, Verdict.FAIL)), found.name
    assert {found.name for found in diagnosis.without_idle_commands().findings if found.how} == {
        "net.core.somaxconn"
    }


def test_workers_are_named_as_a_way_past_the_limit_of_a_process() -> None:
    small = replace(LARGE, fd_hard=20_000)
    limit = finding(small, MILLION, "RLIMIT_NOFILE")
    assert limit.verdict is Verdict.FAIL
    named = re.search(r"fastsse serve --workers (\d+)", limit.how)
    assert named is not None
    shared = Goal(1_000_000, processes=int(named[1]))
    assert verdict(small, shared, "RLIMIT_NOFILE") is Verdict.OK
    fewer = Goal(1_000_000, processes=int(named[1]) - 1)
    assert verdict(small, fewer, "RLIMIT_NOFILE") is Verdict.FAIL


def test_a_tiny_box_says_what_stops_it_and_where_the_bound_is(tmp_path: Path) -> None:
    tiny = {
        **PLAIN,
        "proc/meminfo": "MemTotal: 480000 kB\nMemAvailable: 200000 kB\n",
        "proc/self/limits": LIMITS.format(soft=1024, hard=4096),
        "proc/self/status": "Cpus_allowed_list:\t0\n",
    }
    machine = read_machine(made_up(tmp_path, tiny))
    diagnosis = examine(machine, Goal(100_000))
    assert not diagnosis.can
    # 62,000 pages are short, 93,000 too: a page each is needed.
    expected = {"RLIMIT_NOFILE", "memory", "net.ipv4.tcp_mem"}
    assert names(diagnosis, Verdict.FAIL) == expected
    assert [found.name for found in diagnosis.beyond_settings] == ["memory"]
    assert diagnosis.narrowest is not None
    assert diagnosis.narrowest.name == "RLIMIT_NOFILE"
    assert diagnosis.narrowest.carries == streams_of(4096)
    assert examine(machine, Goal(3000)).can


def test_unreadable_values_are_unknown_and_no_failure() -> None:
    diagnosis = examine(Machine(), MILLION)
    assert diagnosis.can
    assert names(diagnosis, Verdict.OK) == {
        "max_connections",
        "net.netfilter.nf_conntrack_max",
        # Ports don't matter to a server.
        "net.ipv4.ip_local_port_range",
    }


@pytest.mark.parametrize("streams", [1, 100, 255, 256, 10_000, 25_600, 1_000_000, 15_000_000])
def test_the_descriptors_asked_for_are_the_fewest_that_serve(streams: int) -> None:
    limit = descriptors_for(streams)
    assert streams_of(limit) >= streams
    if streams > 256:
        assert streams_of(limit - 1) < streams


def test_the_hard_limit_counts_not_the_soft_one() -> None:
    assert verdict(replace(LARGE, fd_soft=256), MILLION, "RLIMIT_NOFILE") is Verdict.OK
    low = replace(LARGE, fd_hard=1_010_100)
    found = finding(low, MILLION, "RLIMIT_NOFILE")
    assert found.verdict is Verdict.FAIL
    assert "LimitNOFILE=" in found.how
    assert found.carries == 999_999


def test_processes_share_descriptors_but_not_the_machines_files() -> None:
    machine = replace(LARGE, fd_hard=20_000)
    assert verdict(machine, Goal(100_000), "RLIMIT_NOFILE") is Verdict.FAIL
    assert verdict(machine, Goal(100_000, processes=6), "RLIMIT_NOFILE") is Verdict.OK
    few_files = replace(machine, file_max=100_000)
    assert verdict(few_files, Goal(100_000, processes=6), "fs.file-max") is Verdict.FAIL


def test_an_inherited_limit_of_a_billion_is_a_warning(tmp_path: Path) -> None:
    limits = LIMITS.format(soft=2**30 - 8, hard=2**30 - 8)
    files = {**PLAIN, "proc/self/limits": limits, "proc/sys/fs/nr_open": "1073741816"}
    diagnosis = examine(read_machine(made_up(tmp_path, files)), Goal(10_000))
    found = next(f for f in diagnosis.findings if f.name == "RLIMIT_NOFILE")
    assert found.verdict is Verdict.WARN
    assert diagnosis.can
    assert diagnosis.narrowest is not None
    assert (diagnosis.narrowest.carries or 0) <= STREAMS_DEFAULT_MAX


def test_unlimited_descriptors_are_bounded_by_the_kernel() -> None:
    machine = replace(LARGE, fd_hard=UNLIMITED, nr_open=1_048_576)
    assert finding(machine, MILLION, "RLIMIT_NOFILE").carries == streams_of(1_048_576)


def test_more_than_a_million_a_process_must_be_asked_for() -> None:
    machine = replace(LARGE, memory_available_bytes=500 * GIB)
    two = Goal(2_000_000)
    assert verdict(machine, two, "max_connections") is Verdict.FAIL
    asked = replace(two, max_connections=2_000_000)
    assert verdict(machine, asked, "max_connections") is Verdict.OK
    assert verdict(machine, replace(two, processes=2), "max_connections") is Verdict.OK


def test_a_small_max_connections_is_named() -> None:
    goal = Goal(10_000, max_connections=5000)
    found = finding(LARGE, goal, "max_connections")
    assert (found.verdict, found.carries) == (Verdict.FAIL, 5000)


def test_tcp_memory_is_judged_by_a_page_a_socket() -> None:
    machine = replace(LARGE, tcp_mem_pages=(75_000, 100_000, 150_000))
    assert verdict(machine, Goal(100_000), "net.ipv4.tcp_mem") is Verdict.OK
    assert verdict(machine, Goal(100_001), "net.ipv4.tcp_mem") is Verdict.WARN
    assert verdict(machine, Goal(150_001), "net.ipv4.tcp_mem") is Verdict.FAIL
    # A proxy on the same machine has two sockets more for each.
    assert verdict(machine, Goal(50_001, proxied=True), "net.ipv4.tcp_mem") is Verdict.FAIL


def test_tcp_memory_that_a_container_can_not_see_is_unknown(tmp_path: Path) -> None:
    files = {k: v for k, v in PLAIN.items() if not k.endswith("tcp_mem")}
    diagnosis = examine(read_machine(made_up(tmp_path, files)), Goal(10_000))
    found = next(f for f in diagnosis.findings if f.name == "net.ipv4.tcp_mem")
    assert found.verdict is Verdict.UNKNOWN
    assert "host" in found.why
    assert diagnosis.can


def test_a_short_accept_queue_is_a_warning_up_to_what_a_second_brings() -> None:
    machine = replace(LARGE, somaxconn=4096)
    assert verdict(machine, Goal(4096), "net.core.somaxconn") is Verdict.OK
    assert verdict(machine, Goal(4097), "net.core.somaxconn") is Verdict.WARN
    assert MILLION.backlog == Goal(100_000).backlog
    assert examine(machine, MILLION).can


def test_half_open_connections_only_matter_without_syncookies() -> None:
    name = "net.ipv4.tcp_max_syn_backlog"
    assert verdict(replace(LARGE, syn_backlog=128), MILLION, name) is Verdict.OK
    without = replace(LARGE, syn_backlog=128, syncookies=0)
    assert verdict(without, MILLION, name) is Verdict.WARN
    assert verdict(replace(without, syn_backlog=65_535), MILLION, name) is Verdict.OK


@pytest.mark.parametrize(
    ("most", "count", "expected"),
    [
        (1_250_000, 100, Verdict.OK),
        (1_100_000, 100, Verdict.WARN),
        (262_144, 100, Verdict.FAIL),
        (262_144, 0, Verdict.WARN),
        (None, None, Verdict.UNKNOWN),
    ],
)
def test_connection_tracking_needs_an_entry_each(
    most: int | None, count: int | None, expected: Verdict
) -> None:
    machine = replace(LARGE, conntrack_loaded=True, conntrack_max=most, conntrack_count=count)
    assert verdict(machine, MILLION, "net.netfilter.nf_conntrack_max") is expected


def test_without_connection_tracking_nothing_is_needed() -> None:
    assert finding(LARGE, MILLION, "net.netfilter.nf_conntrack_max").value == "not loaded"


def test_ports_only_matter_to_who_opens_connections() -> None:
    name = "net.ipv4.ip_local_port_range"
    assert verdict(LARGE, MILLION, name) is Verdict.OK
    beside = Goal(30_000, proxied=True)
    found = finding(LARGE, beside, name)
    assert (found.verdict, found.carries, found.settable) == (Verdict.FAIL, 28_232, True)
    many = finding(LARGE, Goal(100_000, proxied=True), name)
    assert not many.settable
    assert "2 or more addresses" in many.how


def test_memory_at_rest_must_be_there_and_for_events_should_be() -> None:
    goal = Goal(100_000)
    name = "memory"
    assert goal.idle_bytes < goal.busy_bytes
    for available, expected in (
        (goal.busy_bytes, Verdict.OK),
        (goal.busy_bytes - 1, Verdict.WARN),
        (goal.idle_bytes - 1, Verdict.FAIL),
    ):
        machine = replace(LARGE, memory_available_bytes=available)
        assert verdict(machine, goal, name) is expected
    short = finding(replace(LARGE, memory_available_bytes=goal.busy_bytes // 2), goal, name)
    assert "--memory-limit" in short.how


def test_memory_that_carries_is_what_the_connections_need() -> None:
    goal = Goal(100_000)
    machine = replace(LARGE, memory_available_bytes=goal.idle_bytes)
    assert finding(machine, goal, "memory").carries == goal.connections


def test_topics_of_their_own_need_more_memory() -> None:
    assert Goal(1000, own_topics=True).idle_bytes > Goal(1000).idle_bytes


def test_a_group_that_is_smaller_than_the_machine_stops_it() -> None:
    machine = replace(LARGE, cgroup=Cgroup(GIB, 900 * 2**20, 0.2))
    diagnosis = examine(machine, MILLION)
    assert names(diagnosis, Verdict.FAIL) == {"cgroup memory", "cgroup cpu"}
    found = finding(machine, MILLION, "cgroup memory")
    assert "MemoryMax=" in found.how
    assert "900 MiB used" in found.value


def test_events_that_one_thread_can_not_send_ask_for_processes() -> None:
    busy = Goal(100_000, events_per_s=100)
    found = finding(LARGE, busy, "cores")
    assert found.verdict is Verdict.FAIL
    assert "--processes" in found.how
    assert 0 < (found.carries or 0) < 100_000
    assert verdict(replace(LARGE, cores=200), replace(busy, processes=150), "cores") is Verdict.OK


def test_events_that_must_share_sends_are_a_warning() -> None:
    busy = Goal(100_000, events_per_s=5)
    assert busy.cores_at_least < 1 < busy.cores_at_rest
    assert verdict(LARGE, busy, "cores") is Verdict.WARN


def test_one_core_is_a_warning() -> None:
    assert verdict(replace(LARGE, cores=1), Goal(10_000), "cores") is Verdict.WARN


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("net.ipv4.tcp_wmem", {"tcp_wmem_bytes": (1024, 16_384, 4_194_304)}),
        ("net.ipv4.tcp_wmem", {"tcp_wmem_bytes": (4096, 8 * 2**20, 16 * 2**20)}),
        ("net.ipv4.tcp_rmem", {"tcp_rmem_bytes": (65_536, 131_072, 6_291_456)}),
        ("net.ipv4.tcp_rmem", {"tcp_rmem_bytes": (4096, 8 * 2**20, 16 * 2**20)}),
    ],
)
def test_buffers_meant_for_bulk_are_a_warning(
    name: str, wrong: dict[str, tuple[int, int, int]]
) -> None:
    machine = replace(LARGE, **wrong)  # type: ignore[arg-type]
    assert verdict(machine, MILLION, name) is Verdict.WARN
    assert examine(machine, MILLION).can


def test_a_proxy_on_the_machine_gets_advice_on_unsent_bytes() -> None:
    name = "net.ipv4.tcp_notsent_lowat"
    assert verdict(LARGE, Goal(1000), name) is Verdict.OK
    assert verdict(LARGE, Goal(1000, proxied=True), name) is Verdict.WARN
