"""The incidents: what each is seen by, and how long that takes."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tests.cli.commandline import ROOT
from tests.incidents import faults
from tests.incidents.scene import Scene

Fault = Callable[[Scene], Awaitable["faults.Asked"]]


@dataclass(frozen=True, slots=True)
class Play:
    """One incident.

    Attributes:
        name: of the incident.
        fault: makes it, and says what is to be asked.
        alert: the one that fires.
        finding: the check of the console's Overview; empty: another view shows it.
        cause: the check of `fastsse why` that names it.
        entry: the page and the section of the docs.
    """

    name: str
    fault: Fault
    alert: str
    finding: str
    cause: str
    entry: str


@dataclass(frozen=True, slots=True)
class Seen:
    """How an incident was seen. Times are seconds since it began, but `why_s`: how long `fastsse
    why` took."""

    alert_s: float
    console_s: float
    why_s: float
    console: str
    why: str


PLAYS = (
    Play("slow client", faults.slow_clients, "FastsseSlowClients", "slow clients",
         "slow clients", "docs/guides/alerts.md#slow-clients"),
    Play("blocked proxy", faults.blocked_proxy, "FastsseSilentPages", "silent pages",
         "buffering", "docs/guides/alerts.md#silent-pages"),
    Play("wrong token", faults.wrong_token, "FastsseRequestsRejected", "requests",
         "token", "docs/guides/alerts.md#requests-rejected"),
    Play("store full", faults.store_full, "FastsseStoreAway", "store",
         "store", "docs/guides/alerts.md#store-away"),
    Play("Redis gone", faults.redis_gone, "FastsseStoreAway", "store",
         "store", "docs/guides/alerts.md#store-away"),
    Play("clock jump", faults.clock_jump, "FastsseClock", "clock",
         "clock", "docs/guides/alerts.md#clock"),
    Play("descriptor limit", faults.descriptor_limit, "FastsseTurnedAway", "room",
         "capacity", "docs/guides/alerts.md#turned-away"),
    Play("worker killed in a loop", faults.workers_killed, "FastsseWorkersLost", "workers",
         "workers", "docs/guides/alerts.md#workers-end"),
    Play("topic without publisher", faults.no_publisher, "FastsseQuiet", "",
         "published", "docs/guides/alerts.md#no-publisher"),
    Play("flooding publisher", faults.flood, "FastsseRequestsRejected", "requests",
         "requests", "docs/guides/alerts.md#requests-rejected"),
    Play("memory limit", faults.memory_limit, "FastsseMemory", "memory",
         "memory", "docs/guides/alerts.md#memory"),
    Play("certificate expires", faults.certificate, "FastsseCertificate", "certificate",
         "certificate", "docs/guides/alerts.md#certificate"),
)  # fmt: skip


async def play(incident: Play, scene: Scene) -> Seen:
    """Plays one and looks at it as an operator does; raises AssertionError where it is not seen."""
    asked = await incident.fault(scene)
    began_s = time.monotonic()

    async def console() -> tuple[str, float]:
        if incident.finding:
            check = await scene.found(incident.finding)
            assert check["do"]
            return check["says"], time.monotonic() - began_s
        assert asked.look is not None
        return await asked.look(), time.monotonic() - began_s

    async def alert() -> float:
        await scene.fires(incident.alert)
        return time.monotonic() - began_s

    (shown, console_s), alert_s = await asyncio.gather(console(), alert())
    from_s = time.monotonic()
    said = await scene.why(*asked.arguments, **asked.variables)
    why_s = time.monotonic() - from_s
    scene.check()
    return Seen(alert_s, console_s, why_s, shown, _cause(incident, said))


def _cause(incident: Play, said: dict[str, Any]) -> str:
    """What `why` says of the cause: the first wrong check, or a note without a wrong one."""
    named = [check for check in said["checks"] if check["name"] == incident.cause]
    named = [check for check in named if check["verdict"] in ("wrong", "note")]
    assert named, said
    assert said["cause"] in (incident.cause, None), said
    assert named[0]["do"]
    return str(named[0]["says"])


def section_exists(entry: str) -> bool:
    """Whether a page has the section."""
    page, _, anchor = entry.partition("#")
    titles = re.findall(r"^#+ (.+)$", (ROOT / page).read_text("utf-8"), re.MULTILINE)
    return anchor in {re.sub(r"[^a-z0-9 -]", "", one.lower()).replace(" ", "-") for one in titles}
