"""What the service says of itself: each finding, its absence, and what was long ago."""

from typing import Any

import pytest

from fastsse.checks import NOTE, OK, WRONG
from fastsse.control.condition import Recent, condition
from fastsse.control.stats import CONDITION
from tests.control.test_stats import Service

NOW_S = 1_800_000_000.0
DAY_S = 24 * 3600
# Figures, the check's name and verdict, a word of what is to be done; and figures without it.
FINDINGS: list[tuple[dict[str, int], str, str, str, dict[str, int]]] = [
    ({"store_away": 1}, "store", WRONG, "alerts.md", {"store_away": 0}),
    ({"store_malformed": 1}, "store", WRONG, "history check", {"store_malformed": 0}),
    (
        {"memory_bytes": 90, "memory_limit_bytes": 100}, "memory", WRONG, "memory_limit",
        {"memory_bytes": 89, "memory_limit_bytes": 100},
    ),
    (
        {"connections": 9, "max_connections": 10}, "room", NOTE, "fastsse doctor",
        {"connections": 8, "max_connections": 10},
    ),
    (
        {"connections": 10, "max_connections": 10}, "room", WRONG, "fastsse doctor",
        {"connections": 0, "max_connections": 0},
    ),
    ({"turned_away_full": 1}, "room", NOTE, "descriptors", {"turned_away_full": 0}),
    ({"workers_lost": 2}, "workers", NOTE, "dmesg", {"workers_lost": 0}),
    ({"positions_ahead_ms": 10_001}, "clock", NOTE, "chronyc", {"positions_ahead_ms": 10_000}),
    ({"clock_jumps": 1}, "clock", NOTE, "chronyc", {"clock_jumps": 0}),
    (
        {"tls_expires_s": int(NOW_S) + 3 * DAY_S}, "certificate", NOTE, "fastsse reload",
        {"tls_expires_s": int(NOW_S) + 15 * DAY_S},
    ),
    ({"tls_expires_s": int(NOW_S) - 1}, "certificate", WRONG, "fastsse reload", {}),
    ({"source_up_jobs": 0}, "sources", WRONG, "source list", {"source_up_jobs": 1}),
    ({"blocked": 1}, "slow clients", NOTE, "--blocked", {"blocked": 0}),
    ({"closed_lagged": 1}, "slow clients", NOTE, "--blocked", {"closed_reset": 1}),
    ({"closed_no_pong": 1}, "silent pages", NOTE, "doctor --url", {"closed_timeout": 1}),
    ({"closed_expired": 1}, "endings", NOTE, "/renew", {"closed_client_closed": 1}),
    ({"closed_client_data": 1}, "endings", NOTE, "after its request", {"closed_drained": 1}),
    ({"repeated_resumes": 1}, "loop", NOTE, "max_event", {"repeated_resumes": 0}),
    ({"loop_lag_us": 600_000}, "late", NOTE, "workers", {"loop_lag_us": 400_000}),
    ({"sender_lag_us": 600_000}, "late", NOTE, "workers", {"sender_lag_us": 400_000}),
    (
        {"requests_/events 401": 10}, "requests", NOTE, "token explain",
        {"requests_/events 401": 9, "requests_/events 200": 10**9},
    ),
    ({"requests_/events 500": 1}, "requests", WRONG, "stack", {"requests_/events 503": 1}),
    ({"refused_memory": 1}, "publishers", NOTE, "memory_limit", {"refused_memory": 0}),
    ({"refused_new": 1}, "publishers", NOTE, "operating.md", {}),
]  # fmt: skip


def found(figures: dict[str, int]) -> list[Any]:
    return condition(figures, figures, 60.0, NOW_S, None)


@pytest.mark.parametrize(("figures", "name", "verdict", "do", "without"), FINDINGS)
def test_each_finding_has_its_cause_and_is_absent_without(
    figures: dict[str, int], name: str, verdict: str, do: str, without: dict[str, int]
) -> None:
    (check,) = found(figures)
    assert (check.name, check.verdict) == (name, verdict)
    assert do in check.do
    assert check.says.endswith(".")
    assert [one.verdict for one in found(without)] == [OK]


def test_what_is_wrong_comes_before_what_is_remarkable() -> None:
    checks = condition({"blocked": 1, "store_away": 1}, {}, 60.0, NOW_S, "the disk is full")
    assert [check.verdict for check in checks] == [WRONG, NOTE]
    assert "the disk is full" in checks[0].says


def test_counters_are_of_the_last_quarter_of_an_hour() -> None:
    recent = Recent(0.0, spans=3, span_s=10.0)
    assert recent.since(4.0, {"clock_jumps": 2}) == ({"clock_jumps": 2}, 4.0)
    for second in range(100):
        recent.mark(float(second), {"clock_jumps": min(second, 50), "connections": 7})
    risen, span_s = recent.since(99.0, {"clock_jumps": 50, "connections": 9})
    assert (risen, span_s) == ({}, 29.0)
    assert recent.since(99.0, {"clock_jumps": 51})[0] == {"clock_jumps": 1}


async def test_the_service_answers_for_all_workers_and_those_that_ended() -> None:
    service = Service()
    service.members[0].counters["blocked"] = 2
    service.kill(1)
    answers: list[bytes] = []
    service.service.on_request(0, CONDITION, answers.append)
    for member in service.members.values():
        member.figures.report()
    (answer,) = answers
    assert b"Clients that do not read now: 2" in answer
    assert b"Workers ended" in answer


def test_what_a_worker_had_counted_before_it_joined_is_not_recent() -> None:
    recent = Recent(0.0)
    recent.join({"clock_jumps": 5, "connections": 3})
    assert recent.since(1.0, {"clock_jumps": 5, "connections": 3})[0] == {}
    assert recent.since(1.0, {"clock_jumps": 6})[0] == {"clock_jumps": 1}
