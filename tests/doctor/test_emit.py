"""Emitted files hold the whole profile, lower nothing, and repair what settings can."""

import configparser
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fastsse.cgroups import Cgroup
from fastsse.doctor import Diagnosis, Goal, Machine, Verdict, examine
from fastsse.doctor.emit import KINDS, emit, left_over, profile
from fastsse.doctor.kernel_settings import SETTINGS
from tests.doctor.test_checks import LARGE, MILLION

SMALL = Machine(
    fd_soft=1024,
    fd_hard=4096,
    nr_open=65_536,
    file_max=100_000,
    files_open=1000,
    somaxconn=128,
    syn_backlog=128,
    syncookies=0,
    tcp_mem_pages=(100, 200, 300),
    tcp_rmem_bytes=(4096, 131_072, 6_291_456),
    tcp_wmem_bytes=(4096, 16_384, 4_194_304),
    notsent_lowat_bytes=2**32 - 1,
    ports=(32_768, 60_999),
    conntrack_loaded=True,
    conntrack_max=65_536,
    conntrack_count=10,
    memory_bytes=64 * 2**30,
    memory_available_bytes=60 * 2**30,
    cores=8,
)


def sysctls(text: str) -> dict[str, str]:
    """What a sysctl.d file sets (sysctl.d(5))."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    pairs = (line.removeprefix("-").split(" = ") for line in lines)
    return {name: value for name, value in pairs}


def installed(diagnosis: Diagnosis) -> Machine:
    """The machine after its files were installed."""
    machine = diagnosis.machine
    values = sysctls(emit("sysctl", diagnosis))
    unit = configparser.ConfigParser()
    unit.read_string(emit("systemd", diagnosis))

    def number(name: str) -> int:
        return int(values[name])

    def triple(name: str, now: tuple[int, int, int] | None) -> tuple[int, int, int] | None:
        if name not in values:
            return now
        one, two, three = map(int, values[name].split())
        return one, two, three

    changed = replace(
        machine,
        fd_hard=int(unit["Service"]["LimitNOFILE"]),
        nr_open=number("fs.nr_open"),
        file_max=number("fs.file-max"),
        somaxconn=number("net.core.somaxconn"),
        syn_backlog=number("net.ipv4.tcp_max_syn_backlog"),
        syncookies=number("net.ipv4.tcp_syncookies"),
        tcp_mem_pages=triple("net.ipv4.tcp_mem", machine.tcp_mem_pages),
        tcp_wmem_bytes=triple("net.ipv4.tcp_wmem", machine.tcp_wmem_bytes),
        tcp_rmem_bytes=triple("net.ipv4.tcp_rmem", machine.tcp_rmem_bytes),
    )
    if "net.ipv4.ip_local_port_range" in values:
        first, last = map(int, values["net.ipv4.ip_local_port_range"].split())
        lowat = number("net.ipv4.tcp_notsent_lowat")
        changed = replace(changed, ports=(first, last), notsent_lowat_bytes=lowat)
    if machine.conntrack_loaded:
        changed = replace(changed, conntrack_max=number("net.netfilter.nf_conntrack_max"))
    return changed


def test_installing_the_files_makes_a_small_machine_carry_the_target() -> None:
    diagnosis = examine(SMALL, MILLION)
    assert len(diagnosis.failed) >= 5
    again = examine(installed(diagnosis), MILLION)
    assert again.can
    assert {found.verdict for found in again.findings} == {Verdict.OK}


numbers = st.none() | st.integers(0, 2**31)
triples = st.none() | st.tuples(*[st.integers(1, 2**31)] * 3)
machines = st.builds(
    Machine,
    fd_hard=numbers,
    nr_open=numbers,
    file_max=numbers,
    files_open=st.none() | st.integers(0, 10**6),
    somaxconn=numbers,
    syn_backlog=numbers,
    syncookies=st.none() | st.integers(0, 2),
    tcp_mem_pages=triples,
    tcp_rmem_bytes=triples,
    tcp_wmem_bytes=triples,
    notsent_lowat_bytes=numbers,
    ports=st.none() | st.just((32_768, 60_999)),
    conntrack_loaded=st.booleans(),
    conntrack_max=numbers,
    conntrack_count=numbers,
    memory_available_bytes=numbers,
    cores=st.none() | st.integers(1, 100),
    cgroup=st.just(Cgroup()),
)
goals = st.builds(
    Goal,
    connections=st.integers(1, 5_000_000),
    processes=st.integers(1, 50),
    proxied=st.booleans(),
    events_per_s=st.sampled_from([0.0, 1.0, 100.0]),
)


@given(machines, goals)
def test_the_emitted_files_fix_everything_that_settings_can_fix(
    machine: Machine, goal: Goal
) -> None:
    diagnosis = examine(machine, goal)
    again = examine(installed(diagnosis), goal)
    asked_for = {"max_connections"}
    left = {found.name for found in again.failed if found.settable} - asked_for
    assert left == set()


@given(machines, goals)
def test_installing_again_changes_nothing(machine: Machine, goal: Goal) -> None:
    once = examine(machine, goal)
    twice = examine(installed(once), goal)
    assert sysctls(emit("sysctl", once)) == sysctls(emit("sysctl", twice))
    assert emit("systemd", once) == emit("systemd", twice)


def test_nothing_is_ever_lowered() -> None:
    values = sysctls(emit("sysctl", examine(LARGE, Goal(10))))
    assert values["fs.nr_open"] == "4194304"
    assert values["net.core.somaxconn"] == "65535"
    assert values["net.ipv4.tcp_mem"] == "3000000 4000000 6000000"
    assert "LimitNOFILE=2097152" in emit("systemd", examine(LARGE, Goal(10)))


def test_an_inherited_limit_is_replaced() -> None:
    absurd = replace(LARGE, fd_hard=2**30 - 8)
    assert "LimitNOFILE=1010688" in emit("systemd", examine(absurd, MILLION))


def test_every_setting_is_one_that_is_documented() -> None:
    for goal in (MILLION, replace(MILLION, proxied=True)):
        assert {entry.name for entry in profile(examine(SMALL, goal))} <= SETTINGS.keys()


def test_every_setting_exists_in_this_kernel() -> None:
    for entry in profile(examine(SMALL, replace(MILLION, proxied=True))):
        # A container does not show the node's own.
        if entry.is_namespaced:
            assert Path("/proc/sys", entry.name.replace(".", "/")).exists(), entry.name


def test_a_missing_module_does_not_make_loading_fail() -> None:
    lines = emit("sysctl", examine(SMALL, MILLION)).splitlines()
    assert "-net.netfilter.nf_conntrack_max = 1250000" in lines
    assert "net.netfilter" not in emit("sysctl", examine(LARGE, MILLION))


def test_containers_get_only_what_they_can_have() -> None:
    text = emit("docker", examine(SMALL, MILLION))
    yaml = text[text.index("services:") :]
    assert "hard: 1010688" in yaml
    assert f'net.core.somaxconn: "{MILLION.backlog}"' in yaml
    for name in ("fs.nr_open", "fs.file-max", "net.ipv4.tcp_mem", "nf_conntrack_max"):
        assert name not in yaml
        assert name in text


def test_more_than_a_million_is_asked_for_in_the_files() -> None:
    goal = Goal(3_000_000)
    diagnosis = examine(SMALL, goal)
    assert "Environment=FASTSSE_MAX_CONNECTIONS=3000000" in emit("systemd", diagnosis)
    assert 'FASTSSE_MAX_CONNECTIONS: "3000000"' in emit("docker", diagnosis)
    assert "FASTSSE_MAX_CONNECTIONS" not in emit("systemd", examine(SMALL, MILLION))


def test_each_file_names_what_it_leaves_to_others() -> None:
    poor = replace(SMALL, memory_available_bytes=2**30)
    diagnosis = examine(poor, MILLION)
    left = {kind: {found.name for found in left_over(kind, diagnosis)} for kind in KINDS}
    assert left["sysctl"] == {"RLIMIT_NOFILE", "memory"}
    assert left["systemd"] == {
        *("fs.nr_open", "fs.file-max", "net.ipv4.tcp_mem", "memory"),
        "net.netfilter.nf_conntrack_max",
    }
    assert left["docker"] == left["systemd"]
