"""A machine is read whole, and what it hides is left open instead of breaking the reading."""

from pathlib import Path

from fastsse.cgroups import Cgroup
from fastsse.doctor import Machine, read_machine
from fastsse.doctor.machine import UNLIMITED
from tests.doctor.machines import GIB, LIMITS, PLAIN, made_up


def test_every_value_of_a_plain_machine_is_read(tmp_path: Path) -> None:
    machine = read_machine(made_up(tmp_path, PLAIN))
    assert machine == Machine(
        fd_soft=1024,
        fd_hard=524288,
        nr_open=1048576,
        file_max=405000,
        files_open=1024,
        somaxconn=4096,
        syn_backlog=512,
        syncookies=1,
        tcp_mem_pages=(46500, 62000, 93000),
        tcp_rmem_bytes=(4096, 131072, 6291456),
        tcp_wmem_bytes=(4096, 16384, 4194304),
        notsent_lowat_bytes=4294967295,
        ports=(32768, 60999),
        memory_bytes=4028000 * 1024,
        memory_available_bytes=3500000 * 1024,
        page_bytes=machine.page_bytes,
        cores=2,
        kernel="6.1.0-13-amd64",
        processor="Some CPU",
    )


def test_an_empty_proc_leaves_everything_open(tmp_path: Path) -> None:
    machine = read_machine(made_up(tmp_path, {}))
    assert machine == Machine(page_bytes=machine.page_bytes)


def test_files_that_are_not_what_they_should_be_are_left_open(tmp_path: Path) -> None:
    wrong = dict.fromkeys(PLAIN, "garbage \x00 1 2")
    machine = read_machine(made_up(tmp_path, {**PLAIN, **wrong}))
    assert machine.fd_hard is None
    assert machine.tcp_mem_pages is None
    assert machine.memory_bytes is None
    assert machine.cores is None


def test_files_that_may_not_be_read_are_left_open(tmp_path: Path) -> None:
    roots = made_up(tmp_path, PLAIN)
    for name in ("sys/fs/nr_open", "self/limits", "meminfo", "sys/net/ipv4/tcp_mem"):
        (roots.proc / name).unlink()
        # Reading a folder fails for root as well, whom permissions don't stop.
        (roots.proc / name).mkdir()
    machine = read_machine(roots)
    assert (machine.nr_open, machine.fd_hard, machine.memory_bytes) == (None, None, None)
    assert machine.tcp_mem_pages is None
    assert machine.somaxconn == 4096


def test_an_unlimited_descriptor_limit_is_no_number(tmp_path: Path) -> None:
    limits = LIMITS.format(soft=1024, hard="unlimited")
    machine = read_machine(made_up(tmp_path, {**PLAIN, "proc/self/limits": limits}))
    assert (machine.fd_soft, machine.fd_hard) == (1024, UNLIMITED)


def test_another_process_is_read_by_its_id(tmp_path: Path) -> None:
    limits = LIMITS.format(soft=10, hard=20)
    roots = made_up(tmp_path, {**PLAIN, "proc/77/limits": limits})
    assert read_machine(roots, "77").fd_hard == 20


def test_connection_tracking_is_only_there_when_it_is_loaded(tmp_path: Path) -> None:
    assert not read_machine(made_up(tmp_path / "without", PLAIN)).conntrack_loaded
    loaded = {
        **PLAIN,
        "proc/sys/net/netfilter/nf_conntrack_max": "65536",
        "proc/sys/net/netfilter/nf_conntrack_count": "12",
    }
    machine = read_machine(made_up(tmp_path / "with", loaded))
    assert machine.conntrack_loaded
    assert (machine.conntrack_max, machine.conntrack_count) == (65536, 12)


def test_cores_of_a_pinned_process_are_counted(tmp_path: Path) -> None:
    status = "Name:\tx\nCpus_allowed_list:\t0-3,8,10-11\n"
    assert read_machine(made_up(tmp_path, {**PLAIN, "proc/self/status": status})).cores == 7


def test_the_narrowest_group_of_version_2_holds(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/system.slice"
    files = {
        **PLAIN,
        f"{group}/memory.max": str(2 * GIB),
        f"{group}/memory.current": str(GIB),
        f"{group}/memory.stat": f"anon 5\ninactive_file {GIB // 2}\n",
        f"{group}/fastsse.service/memory.max": "max",
        f"{group}/fastsse.service/memory.current": "5",
        f"{group}/fastsse.service/cpu.max": "150000 100000",
        f"{group}/cpu.max": "max 100000",
    }
    cgroup = read_machine(made_up(tmp_path, files)).cgroup
    assert cgroup == Cgroup(2 * GIB, GIB // 2, 1.5)


def test_a_container_reads_its_group_at_the_root_of_its_mount(tmp_path: Path) -> None:
    files = {
        **PLAIN,
        "proc/self/cgroup": "0::/../../../docker/0123\n",
        "sys/fs/cgroup/memory.max": str(GIB),
        "sys/fs/cgroup/memory.current": "0",
        "sys/fs/cgroup/cpu.max": "50000 100000",
    }
    assert read_machine(made_up(tmp_path, files)).cgroup == Cgroup(GIB, 0, 0.5)


def test_groups_of_version_1_hold_too(tmp_path: Path) -> None:
    files = {
        **PLAIN,
        "proc/self/cgroup": "4:memory:/docker/0123\n3:cpu,cpuacct:/docker/0123\n0::/\n",
        # The path is the host's: inside, the mount's root is the container's group.
        "sys/fs/cgroup/memory/memory.limit_in_bytes": str(GIB),
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "4096",
        "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 4000\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
    }
    assert read_machine(made_up(tmp_path, files)).cgroup == Cgroup(GIB, 96, 2.0)


def test_no_limit_is_none_in_both_versions(tmp_path: Path) -> None:
    files = {
        **PLAIN,
        "proc/self/cgroup": "4:memory:/\n3:cpu:/\n0::/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": str(0x7FFFFFFFFFFFF000),
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/memory.max": "max",
        "sys/fs/cgroup/cpu.max": "max 100000",
    }
    assert read_machine(made_up(tmp_path, files)).cgroup == Cgroup()


def test_this_machine_is_read_without_falling_over() -> None:
    machine = read_machine()
    assert machine.fd_hard is not None
    assert machine.memory_bytes is not None
    assert machine.cores is not None
