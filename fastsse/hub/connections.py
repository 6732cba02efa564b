"""Connected clients: facts of each open stream for operators, in addition to the sender's figures.

The address, the user agent and the subject of a stream are kept in packed rows of 64 bytes
(`_connections.pyx`), apart from the sender's own rows. Agents are interned, because there are few.
Loop thread only.
"""

import ipaddress
import time
import uuid
from collections.abc import Callable, Container
from contextlib import suppress
from socket import AF_INET, AF_INET6, inet_pton
from typing import Final, NamedTuple

from fastsse._connections import ROW_BYTES, ConnectionRows
from fastsse.auth.rights import Rights, claim_hash

__all__ = ["ConnectionFilter", "Connections", "Seen", "Visitor"]

# Distinct agents that are kept; others are shown as this text.
AGENTS_MAX: Final = 4_096
AGENT_BYTES_MAX: Final = 200
_OTHER: Final = b"other"
_UNIX: Final = "unix"
_IPV4_BYTES: Final = 4
_UUID_CHARACTERS: Final = 36
# Slots that one step examines: well under a millisecond.
SLOTS_A_STEP: Final = 20_000


class Visitor(NamedTuple):
    """The client of a stream: host (`unix` for a Unix socket), port (0: unknown), user agent."""

    host: str = ""
    port: int = 0
    agent: bytes = b""


class Seen(NamedTuple):
    """Facts of an open stream."""

    channel: int
    age_s: float
    address: str
    agent: str
    subject: str | None


class ConnectionFilter(NamedTuple):
    """Selects streams; the default is all.

    Attributes:
        address: an address or a network (None: any).
        subject: a token's `sub`.
        agent: a part of the user agent, in any letter case.
        channel: returns for the number of a channel whether its streams are selected.
    """

    address: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    subject: str | None = None
    agent: str | None = None
    channel: Callable[[int], bool] | None = None


class Connections:
    """The rows of one worker's streams.

    Arguments:
        capacity: rows of the connection table.
        now_s: a monotonic clock.
    """

    def __init__(self, capacity: int, now_s: Callable[[], float] = time.monotonic) -> None:
        self._rows = ConnectionRows(capacity)
        self._now_s = now_s
        self._began_s = now_s()
        self._agents: list[bytes] = []
        self._uses: list[int] = []
        self._number_of: dict[bytes, int] = {}
        self._free: list[int] = []

    @property
    def memory_bytes(self) -> int:
        """Bytes of all rows that have been used. O(1)."""
        return ROW_BYTES * self._rows.used

    @property
    def capacity(self) -> int:
        """Number of slots; a search ends at this one."""
        return self._rows.capacity

    def opened(self, handle: int, channel: int, visitor: Visitor, rights: Rights | None) -> None:
        """A stream opened. O(1)."""
        subject = None if rights is None else rights.subject
        packed_subject, is_uuid = _packed_subject(subject or "")
        self._rows.put(
            handle,
            channel,
            round((self._now_s() - self._began_s) * 10),
            self._take_agent(visitor.agent[:AGENT_BYTES_MAX]),
            _packed_address(visitor.host),
            visitor.port,
            0 if rights is None else rights.claims[1],
            packed_subject,
            is_uuid,
        )

    def closed(self, handle: int) -> None:
        """A stream ended. O(1)."""
        number = self._rows.drop(handle)
        if number is not None:
            self._give_back(number)

    def seen(self, handle: int) -> Seen | None:
        """Facts of a stream; None if it is not open. O(1)."""
        row = self._rows.get(handle)
        if row is None:
            return None
        channel, opened_ds, agent, address, port, subject, is_uuid, is_cut = row
        age_s = self._now_s() - self._began_s - opened_ds / 10
        return Seen(
            channel,
            max(0.0, age_s),
            _address_text(address, port),
            self._agents[agent].decode(errors="replace"),
            _subject_text(subject, is_uuid=is_uuid, is_cut=is_cut),
        )

    def search(self, wanted: ConnectionFilter) -> "ConnectionSearch":
        """Begins a search."""
        return ConnectionSearch(self._rows, wanted, self._agents_with(wanted.agent))

    def _agents_with(self, part: str | None) -> Container[int] | None:
        if part is None:
            return None
        wanted = part.lower()
        return {
            number
            for number, agent in enumerate(self._agents)
            if wanted in agent.decode(errors="replace").lower()
        }

    def _take_agent(self, agent: bytes) -> int:
        number = self._number_of.get(agent)
        if number is None:
            if len(self._number_of) >= AGENTS_MAX and agent != _OTHER:
                return self._take_agent(_OTHER)
            number = self._free.pop() if self._free else len(self._agents)
            if number == len(self._agents):
                self._agents.append(agent)
                self._uses.append(0)
            self._agents[number] = agent
            self._number_of[agent] = number
        self._uses[number] += 1
        return number

    def _give_back(self, number: int) -> None:
        self._uses[number] -= 1
        if not self._uses[number]:
            del self._number_of[self._agents[number]]
            self._free.append(number)


class ConnectionSearch:
    """A search in steps, so that no turn of the loop takes long."""

    def __init__(
        self, rows: ConnectionRows, wanted: ConnectionFilter, agents: Container[int] | None
    ) -> None:
        self._rows = rows
        self._wanted = wanted
        self._agents = agents
        self._verdicts = bytearray()
        network = wanted.address
        self._prefix = b"" if network is None else network.network_address.packed
        self._bits = 0 if network is None else network.prefixlen
        self._subject = 0 if wanted.subject is None else claim_hash(wanted.subject)

    def step(self, first: int, limit: int, slots: int = SLOTS_A_STEP) -> tuple[list[int], int]:
        """At most `limit` matching handles from a slot on, and the next slot. O(slots)."""
        return self._rows.scan(
            first,
            slots,
            limit,
            self._wanted.channel,
            self._verdicts,
            self._subject,
            self._prefix,
            self._bits,
            self._agents,
        )


def _packed_address(host: str) -> bytes:
    # Not `ipaddress`, which takes ten times as long: every new stream comes here.
    try:
        return inet_pton(AF_INET6 if ":" in host else AF_INET, host.partition("%")[0])
    except (OSError, ValueError):  # `unix`, or no address at all.
        return b""


def _address_text(packed: bytes, port: int) -> str:
    if not packed:
        return _UNIX
    host = str(ipaddress.ip_address(packed))
    if not port:
        return host
    return f"{host}:{port}" if len(packed) == _IPV4_BYTES else f"[{host}]:{port}"


def _packed_subject(subject: str) -> tuple[bytes, bool]:
    """A subject's bytes, and whether they are the 16 bytes of a UUID."""
    if len(subject) == _UUID_CHARACTERS:
        with suppress(ValueError):
            known = uuid.UUID(subject)
            if str(known) == subject:
                return known.bytes, True
    return subject.encode(), False


def _subject_text(packed: bytes, *, is_uuid: bool, is_cut: bool) -> str | None:
    if not packed:
        return None
    if is_uuid:
        return str(uuid.UUID(bytes=packed))
    return packed.decode(errors="ignore") + ("…" if is_cut else "")
