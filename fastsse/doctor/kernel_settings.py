"""Every kernel setting that matters to very many streams: what it bounds and how a wrong value
shows. tuning.md's table is made of it; the checks and the files to install take names and scopes
from it.
"""

from enum import StrEnum
from typing import NamedTuple


class Scope(StrEnum):
    """Where a setting is set, and what Kubernetes calls that (kubernetes.io, "Using sysctls")."""

    NODE = "node"
    POD = "pod, safe"
    POD_UNSAFE = "pod, unsafe"

    @property
    def is_namespaced(self) -> bool:
        """Whether a network namespace, and with it a container, has its own value."""
        return self is not Scope.NODE


class KernelSetting(NamedTuple):
    """One setting. `default` is the kernel's own; distributions differ."""

    name: str
    unit: str
    default: str
    advice: str
    symptom: str
    watch: str
    source: str
    scope: Scope


_IP = "ip-sysctl.rst"
_NET = "sysctl/net.rst"
_FS = "sysctl/fs.rst"
_CT = "nf_conntrack-sysctl.rst"

_ALL = (
    KernelSetting(
        "fs.nr_open",
        "descriptors of a process",
        "1048576",
        "above the descriptor limit you want; set it before whatever raises that limit",
        '`LimitNOFILE=` or `ulimit -n` fails with "Operation not permitted"',
        "`fastsse_max_connections`",
        _FS,
        Scope.NODE,
    ),
    KernelSetting(
        "fs.file-max",
        "open files of the machine",
        "about a tenth of memory, in KiB",
        "all processes' descriptors and what else is open",
        'ENFILE in every program; "VFS: file-max limit … reached" in dmesg',
        "first number of `/proc/sys/fs/file-nr`",
        _FS,
        Scope.NODE,
    ),
    KernelSetting(
        "net.core.somaxconn",
        "connections waiting to be accepted",
        "4096 (128 before Linux 5.4)",
        "what one process accepts in a second",
        "after a restart clients take seconds to reconnect: their SYNs were dropped",
        "`nstat -az TcpExtListenOverflows`, Recv-Q of `ss -lnt`",
        _NET,
        Scope.POD_UNSAFE,
    ),
    KernelSetting(
        "net.ipv4.tcp_max_syn_backlog",
        "half-open connections of a listener",
        "128 and more, by memory",
        "as somaxconn; it only counts where syncookies are off",
        "as somaxconn",
        "`nstat -az TcpExtTCPReqQFullDrop TcpExtTCPReqQFullDoCookies`",
        "tcp_conn_request() in net/ipv4/tcp_input.c",
        Scope.POD_UNSAFE,
    ),
    KernelSetting(
        "net.ipv4.tcp_syncookies",
        "0, 1, 2",
        "1",
        "1",
        "0: a reconnect storm looks like a SYN flood, and its SYNs are dropped",
        '"possible SYN flooding" in dmesg',
        _IP,
        Scope.POD,
    ),
    KernelSetting(
        "net.ipv4.tcp_abort_on_overflow",
        "0, 1",
        "0",
        "0: a client whose SYN was dropped tries again by itself",
        "1: new connections are reset in a storm",
        "`nstat -az TcpExtListenOverflows`",
        _IP,
        Scope.POD_UNSAFE,
    ),
    KernelSetting(
        "net.ipv4.tcp_mem",
        "pages (not bytes), three bounds",
        "4.7 %, 6.25 %, 9.4 % of memory",
        "the second bound a page a connection; the third below what memory is left",
        '"TCP: out of memory" in dmesg, events late for everybody; too high: the OOM killer',
        "`mem` of `/proc/net/sockstat` (pages), `nstat -az TcpExtTCPMemoryPressures`",
        "tcp_init_mem() in net/ipv4/tcp.c",
        Scope.NODE,
    ),
    KernelSetting(
        "net.ipv4.tcp_wmem",
        "bytes of a socket, least, first, most",
        "4096 16384 4194304",
        "least 4096; most 256 KiB to 4 MiB",
        "most too large: memory grows with every client on a bad line; too small: resuming over "
        "a long line is slow; least below a page: out of memory",
        "`t` of `ss -tm`, `mem` of `/proc/net/sockstat`",
        _IP,
        Scope.POD,
    ),
    KernelSetting(
        "net.ipv4.tcp_rmem",
        "bytes of a socket, least, first, most",
        "4096 131072 6291456 (most 32 MiB on new kernels)",
        "leave it: listeners send nothing, and an idle socket holds no buffer",
        "memory held for clients that upload",
        "`r` of `ss -tm`",
        _IP,
        Scope.POD,
    ),
    KernelSetting(
        "net.ipv4.tcp_notsent_lowat",
        "unsent bytes of a socket",
        "4294967295 (no bound)",
        "leave it for us, who set `notsent_lowat` on each stream; 16384 to 131072 for a proxy",
        "a slow client gets old events: megabytes wait in the kernel before the server notices",
        "Send-Q of `ss -t`, `fastsse_lag_bytes`",
        _IP,
        Scope.POD_UNSAFE,
    ),
    KernelSetting(
        "net.core.wmem_max, rmem_max",
        "bytes",
        "212992 (4 MiB on new kernels)",
        "leave it: they bound what programs ask for, and we ask for nothing",
        "none",
        "",
        _NET,
        Scope.NODE,
    ),
    KernelSetting(
        "net.ipv4.tcp_retries2",
        "sends again",
        "15, about 925 s",
        "leave it for us, who set `user_timeout`; 8 for a proxy without such a setting",
        "clients that vanished stay for a quarter of an hour",
        '`ss -to` with growing timers, `fastsse_disconnects_total{reason="timeout"}`',
        "tcp(7), RFC 1122 §4.2.3.5",
        Scope.POD_UNSAFE,
    ),
    KernelSetting(
        "net.ipv4.tcp_keepalive_time, _intvl, _probes",
        "s, s, probes",
        "7200 75 9",
        "leave them: heartbeats find dead clients sooner",
        "none",
        "",
        _IP,
        Scope.POD,
    ),
    KernelSetting(
        "net.ipv4.tcp_slow_start_after_idle",
        "0, 1",
        "1",
        "0 where events are larger than about 14 KiB",
        "the first large event after a silence takes several round trips",
        "`fastsse_delivery_latency_seconds` against what clients see",
        _IP,
        Scope.POD_UNSAFE,
    ),
    KernelSetting(
        "net.ipv4.tcp_max_orphans",
        "sockets without an owner",
        "by memory, 131072 and more",
        "never lower it; raise it to the clients that may vanish at once",
        '"too many orphaned sockets" in dmesg after many clients vanished; each may hold 64 KiB',
        "`orphan` of `/proc/net/sockstat`",
        _IP,
        Scope.NODE,
    ),
    KernelSetting(
        "net.ipv4.tcp_orphan_retries",
        "sends again",
        "0, which means 8",
        "3 where many clients vanish",
        "as tcp_max_orphans",
        "`orphan` of `/proc/net/sockstat`",
        _IP,
        Scope.POD_UNSAFE,
    ),
    KernelSetting(
        "net.ipv4.tcp_fin_timeout",
        "s",
        "60",
        "15 to 30 where streams come and go by the thousand",
        "memory in FIN-WAIT-2 after a drain",
        "`ss -s`",
        _IP,
        Scope.POD,
    ),
    KernelSetting(
        "net.ipv4.tcp_max_tw_buckets",
        "sockets in TIME-WAIT, 256 B each",
        "by memory, up to 262144",
        "leave it: what is above is forgotten, without harm here",
        '"time wait bucket table overflow" in dmesg',
        "`tw` of `/proc/net/sockstat`",
        _IP,
        Scope.POD_UNSAFE,
    ),
    KernelSetting(
        "net.ipv4.tcp_tw_reuse",
        "0, 1, 2",
        "2 (loopback only)",
        "leave it: it is about connections that this machine opens; 1 helps a load generator",
        "none for a server",
        "",
        _IP,
        Scope.POD_UNSAFE,
    ),
    KernelSetting(
        "net.ipv4.tcp_migrate_req",
        "0, 1",
        "0",
        "1 where several servers listen on one port with SO_REUSEPORT",
        "new connections are reset when one of the servers stops",
        "`nstat -az TcpExtTCPMigrateReqFailure`",
        _IP,
        Scope.POD_UNSAFE,
    ),
    KernelSetting(
        "net.ipv4.ip_local_port_range",
        "ports",
        "32768 60999: 28232 ports",
        "`1024 65535` on proxies and load generators; or more addresses, on either end",
        '"Cannot assign requested address" at about 28,000 connections through a proxy',
        "`ss -s` on the proxy",
        _IP,
        Scope.POD,
    ),
    KernelSetting(
        "net.ipv4.ip_local_reserved_ports",
        "ports",
        "none",
        "the ports that servers listen on, once the range above holds them",
        "a server can't bind its port after a restart: an outgoing connection has it",
        '"Port 8080 is in use."',
        _IP,
        Scope.POD,
    ),
    KernelSetting(
        "net.netfilter.nf_conntrack_max",
        "flows",
        "by memory, up to 262144",
        "keep the port out of it (`notrack`), or allow a flow a connection and a quarter more",
        '"nf_conntrack: table full, dropping packet" in dmesg; new connections time out',
        "`/proc/sys/net/netfilter/nf_conntrack_count`",
        _CT,
        Scope.NODE,
    ),
    KernelSetting(
        "net.netfilter.nf_conntrack_buckets",
        "hash buckets",
        "by memory, up to 262144",
        "a quarter of nf_conntrack_max or more",
        "CPU in softirq grows with the connections",
        "`perf top`, `conntrack -S`",
        _CT,
        Scope.NODE,
    ),
    KernelSetting(
        "net.netfilter.nf_conntrack_tcp_timeout_established",
        "s",
        "432000 (5 days)",
        "an hour, with heartbeats every 15 s",
        "the table fills with flows of clients that vanished",
        "`/proc/sys/net/netfilter/nf_conntrack_count` against `fastsse_connections`",
        _CT,
        Scope.NODE,
    ),
    KernelSetting(
        "net.core.default_qdisc",
        "name",
        "pfifo_fast; fq_codel with systemd",
        "`fq` towards the internet, which paces",
        "loss in bursts when one event goes to everybody",
        "`nstat -az TcpRetransSegs`, `tc -s qdisc`",
        _NET,
        Scope.NODE,
    ),
    KernelSetting(
        "net.core.netdev_max_backlog",
        "packets of a core",
        "1000",
        "leave it unless the counter grows",
        "loss on receiving",
        "second column of `/proc/net/softnet_stat`",
        _NET,
        Scope.NODE,
    ),
    KernelSetting(
        "vm.swappiness",
        "0 to 200",
        "60",
        "1, or no swap",
        "latency of seconds now and then: parts of the connection table were swapped out",
        "`si` and `so` of `vmstat 1`",
        "sysctl/vm.rst",
        Scope.NODE,
    ),
)

SETTINGS: dict[str, KernelSetting] = {setting.name: setting for setting in _ALL}
