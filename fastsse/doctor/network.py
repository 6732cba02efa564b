"""Whether the kernel's TCP can hold so many connections, and how newcomers get in."""

from fastsse.doctor.finding import Finding, Verdict
from fastsse.doctor.goal import Goal
from fastsse.doctor.machine import Machine
from fastsse.doctor.words import count, counts, size

# Ports that an outgoing connection may take if the range is opened wide.
WIDE_PORTS = (1024, 65535)
# Free entries that connection tracking should have for flows that ended and linger.
_FLOWS_SPARE = 1.25
# A first buffer of so much is meant for bulk transfers.
_BULK_BYTES = 2**20


def somaxconn(machine: Machine, goal: Goal) -> Finding:
    """Newcomers that wait to be accepted."""
    return Finding(
        "net.core.somaxconn",
        _wanted(machine.somaxconn, goal.backlog),
        count(machine.somaxconn),
        f"at least {goal.backlog:,}",
        "After a restart all clients connect at once. One that finds the queue full tries again "
        f"after a second or more; a process accepts about {goal.backlog:,} in that time.",
        f"sysctl -w net.core.somaxconn={max(goal.backlog, machine.somaxconn or 0)}; then restart "
        "the server, which listens with what is allowed when it starts.",
    )


def syn_backlog(machine: Machine, goal: Goal) -> Finding:
    """Half-open connections; a bound only where syncookies are off."""
    value, cookies = machine.syn_backlog, machine.syncookies
    verdict = _wanted(value, goal.backlog) if cookies == 0 else Verdict.OK
    if value is None or cookies is None:
        verdict = Verdict.UNKNOWN
    state = {0: "off", None: "unknown"}.get(cookies, "on")
    return Finding(
        "net.ipv4.tcp_max_syn_backlog",
        verdict,
        f"{count(value)} (syncookies {state})",
        f"at least {goal.backlog:,}, or syncookies on",
        "Half-open connections of one listener. With syncookies on the kernel uses somaxconn "
        "instead and drops no client.",
        "sysctl -w net.ipv4.tcp_syncookies=1 "
        f"net.ipv4.tcp_max_syn_backlog={max(goal.backlog, value or 0)}",
    )


def tcp_mem(machine: Machine, goal: Goal) -> Finding:
    """Pages for all TCP buffers together: one for each socket that has anything to send."""
    pages, need = machine.tcp_mem_pages, goal.tcp_mem_pages
    verdict = Verdict.UNKNOWN
    if pages is not None:
        low, most = goal.sockets > pages[1], goal.sockets > pages[2]
        verdict = Verdict.FAIL if most else Verdict.WARN if low else Verdict.OK
    asked = tuple(map(max, need, pages or need))
    where = "Not shown inside containers; look on the host. " if pages is None else ""
    return Finding(
        "net.ipv4.tcp_mem",
        verdict,
        counts(pages),
        f"{counts(need)} pages ({size(need[1] * machine.page_bytes)} in the middle)",
        f"{where}A socket with unacknowledged bytes counts a page or more. When an event goes to "
        "all of them, above the second number the kernel shrinks all buffers, above the "
        "third it drops.",
        f'sysctl -w net.ipv4.tcp_mem="{counts(asked)}" on the host: pages, not bytes.',
        None if pages is None else pages[2] * goal.connections // goal.sockets,
    )


def tcp_wmem(machine: Machine, goal: Goal) -> Finding:
    """Send buffer of a socket: least, first, most."""
    value = machine.tcp_wmem_bytes
    verdict = Verdict.UNKNOWN if value is None else Verdict.OK
    if value is not None and (value[0] < machine.page_bytes or value[1] > _BULK_BYTES):
        verdict = Verdict.WARN
    return Finding(
        "net.ipv4.tcp_wmem",
        verdict,
        counts(value),
        f"the first at least {machine.page_bytes}, the second at most {_BULK_BYTES}",
        "Least, first and largest send buffer of a socket. It is used up only by what is on its "
        "way: the server bounds what waits (notsent_lowat). A large third one costs memory with "
        "clients on bad lines; below a page in the first the kernel can run out of memory.",
        _buffers("net.ipv4.tcp_wmem", "4096 16384 4194304", value, verdict),
    )


def tcp_rmem(machine: Machine, goal: Goal) -> Finding:
    """Receive buffer of a socket: least, first, most."""
    value = machine.tcp_rmem_bytes
    verdict = Verdict.UNKNOWN if value is None else Verdict.OK
    if value is not None and (value[0] > machine.page_bytes or value[1] > _BULK_BYTES):
        verdict = Verdict.WARN
    return Finding(
        "net.ipv4.tcp_rmem",
        verdict,
        counts(value),
        f"the first at most {machine.page_bytes}, the second at most {_BULK_BYTES}",
        "Least, first and largest receive buffer of a socket. Listeners send nothing, and an idle "
        "socket holds no buffer: these are limits for uploads.",
        _buffers("net.ipv4.tcp_rmem", "4096 131072 6291456", value, verdict),
    )


def notsent_lowat(machine: Machine, goal: Goal) -> Finding:
    """Unsent bytes that the kernel takes for a socket."""
    value = machine.notsent_lowat_bytes
    concerned = goal.proxied and value is not None and value > _BULK_BYTES
    verdict = Verdict.WARN if concerned else Verdict.OK
    return Finding(
        "net.ipv4.tcp_notsent_lowat",
        Verdict.UNKNOWN if value is None else verdict,
        "no bound" if value is not None and value >= 2**32 - 1 else count(value),
        "any (131,072 for a proxy)",
        "The server sets its own bound on each stream (notsent_lowat). A proxy on this machine "
        "does not: megabytes of old events wait in its sockets.",
        f"sysctl -w net.ipv4.tcp_notsent_lowat={131_072 if concerned or value is None else value}",
    )


def port_range(machine: Machine, goal: Goal) -> Finding:
    """Ports for connections that this machine opens."""
    ports = machine.ports
    number = None if ports is None else ports[1] - ports[0] + 1
    verdict = Verdict.OK
    if goal.proxied:
        verdict = _wanted(number, goal.connections, Verdict.FAIL)
    addresses = -(-goal.connections // (WIDE_PORTS[1] - WIDE_PORTS[0] + 1))
    return Finding(
        "net.ipv4.ip_local_port_range",
        verdict,
        "can't be read" if ports is None else f"{ports[0]} {ports[1]}: {number:,} ports",
        f"{goal.connections:,} ports" if goal.proxied else "any",
        "A port is needed for each connection that this machine opens from one address to one "
        "address and port: for proxies and load generators, not for the server.",
        f'sysctl -w net.ipv4.ip_local_port_range="{WIDE_PORTS[0]} {WIDE_PORTS[1]}", the servers\' '
        f"ports in ip_local_reserved_ports, and {addresses:,} or more addresses on either end "
        "(or as many listening ports, or a Unix socket).",
        number if goal.proxied else None,
        settable=addresses == 1,
    )


def conntrack(machine: Machine, goal: Goal) -> Finding:
    """Entries of connection tracking, where it is loaded."""
    name, need = "net.netfilter.nf_conntrack_max", conntrack_needed(goal)
    asked = max(need, machine.conntrack_max or 0)
    why = (
        "A firewall or NAT (Docker's bridge, kube-proxy) tracks each connection; when the table "
        "is full the kernel drops packets of new connections."
    )
    how = (
        "Keep the port out of it (nft … notrack), use host networking, or "
        f"sysctl -w {name}={asked} net.netfilter.nf_conntrack_buckets={asked // 4} on the host."
    )
    if not machine.conntrack_loaded:
        return Finding(name, Verdict.OK, "not loaded", "nothing", why, how)
    most, now = machine.conntrack_max, machine.conntrack_count
    value = f"{count(most)} ({count(now)} now)"
    if most is None:
        return Finding(name, Verdict.UNKNOWN, value, f"at least {need:,}", why, how)
    verdict = Verdict.OK if most >= need else Verdict.WARN
    if goal.flows > most:
        verdict = Verdict.FAIL
    carries: int | None = most // (goal.flows // goal.connections)
    if now == 0:
        # Loaded, but no rule asks for it: this machine has connections, the one to it among them.
        value, carries = f"{count(most)} (tracks nothing now)", None
        verdict = Verdict.WARN if verdict is Verdict.FAIL else verdict
    return Finding(name, verdict, value, f"at least {need:,}", why, how, carries)


def conntrack_needed(goal: Goal) -> int:
    """Entries with room for flows that ended and are still remembered."""
    return int(goal.flows * _FLOWS_SPARE)


def _buffers(name: str, usual: str, value: tuple[int, ...] | None, verdict: Verdict) -> str:
    """What is right stays as it is."""
    return f'sysctl -w {name}="{usual if verdict is not Verdict.OK else counts(value)}"'


def _wanted(value: int | None, need: int, otherwise: Verdict = Verdict.WARN) -> Verdict:
    if value is None:
        return Verdict.UNKNOWN
    return Verdict.OK if value >= need else otherwise
