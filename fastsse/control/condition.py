"""How the service is: what an operator should look at, from the figures of all its workers.

The console shows it first, and `fastsse why` says it before what is known of a topic. Counters are
compared with those of up to a quarter of an hour ago, so what was long ago is not shown.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from typing import Final

from fastsse.checks import NOTE, OK, WRONG, Check
from fastsse.metrics import is_counter
from fastsse.units import format_duration, format_size

__all__ = ["Recent", "condition"]

Figures = Mapping[str, int]
_NEARLY: Final = 0.9
_LATE_US: Final = 500_000
_AHEAD_MS: Final = 10_000
_HOUR_S: Final = 3600
_SOON_S: Final = 14 * 24 * _HOUR_S
_SOURCE_UP: Final = "source_up_"
# Several requests a minute are more than somebody's mistyped token.
_REJECTED_MIN: Final = 10
_REJECTED: Final = {
    "401": "fastsse token explain says what is wrong with a token; was a key rotated?",
    "403": "mercure.subscribe and mercure.publish of the tokens; --cors-origins.",
    "421": "--allowed-hosts names what clients may ask for.",
    "429": "fastsse_limited_total names the limit; is a client or a publisher broken?",
}
# Why streams end that should go on; what is normal is left out.
_ENDINGS: Final = {
    "expired": "expired: POST /renew when fastsse.expiring comes.",
    "revoked": "revoked: POST /revoke, or a subject that is barred.",
    "kicked": "kicked: an operator; the audit log says who.",
    "client_data": "client_data: the client sent something after its request.",
}
_REFUSED: Final = {
    "memory": "memory_limit, history_total; fastsse topics list --sort bytes.",
    "queue": "A publisher floods: max_publish_rate of a rule, address_publishes; fastsse top.",
    "backbone": "The store: /readyz names the cause.",
}


class Recent:
    """What was counted in the last quarter of an hour.

    Arguments:
        now_s: where it begins, on the clock of the calls.
        spans: how many marks are kept.
        span_s: how long after one mark the next is set.
    """

    def __init__(self, now_s: float, spans: int = 15, span_s: float = 60.0) -> None:
        self._marks: deque[tuple[float, dict[str, int]]] = deque([(now_s, {})], maxlen=spans)
        self._span_s = span_s

    def join(self, figures: Figures) -> None:
        """A worker is here with what it has counted before, which is not recent."""
        for _, marked in self._marks:
            for key, value in figures.items():
                if is_counter(key):
                    marked[key] = marked.get(key, 0) + value

    def mark(self, now_s: float, figures: Figures) -> None:
        """Keeps the figures, if the last mark is old enough. Call it about once a second."""
        if now_s - self._marks[-1][0] >= self._span_s:
            self._marks.append((now_s, dict(figures)))

    def since(self, now_s: float, figures: Figures) -> tuple[Figures, float]:
        """By how much each counter rose since the oldest mark, and how many seconds ago that
        was."""
        at_s, before = self._marks[0]
        risen = {
            key: value - before.get(key, 0) for key, value in figures.items() if is_counter(key)
        }
        return {key: value for key, value in risen.items() if value > 0}, now_s - at_s


def condition(
    now: Figures, risen: Figures, span_s: float, unix_s: float, trouble: str | None
) -> list[Check]:
    """What is wrong or remarkable; one check that is OK if nothing is.

    Arguments:
        now, risen: the figures of all workers, and what was counted in the last `span_s`.
        unix_s: the time.
        trouble: why the store takes no events.
    """
    past = f"in the last {format_duration(max(1, round(span_s)))}"
    found = [
        *_store(now, trouble),
        *_memory(now),
        *_room(now, risen, past),
        *_workers(risen, past),
        *_clock(now, risen, past),
        *_certificate(now, unix_s),
        *_sources(now),
        *_clients(now, risen, past),
        *_late(now),
        *_requests(risen, past),
        *_publishers(risen, past),
    ]
    found.sort(key=lambda check: check.verdict != WRONG)
    return found or [Check("service", OK, f"Nothing remarkable of the service {past}.")]


def _store(now: Figures, trouble: str | None) -> Iterator[Check]:
    if now.get("store_away"):
        why = f": {trouble.rstrip('.')}" if trouble else ""
        yield Check(
            "store",
            WRONG,
            f"The store takes no events{why}. Streams stay open.",
            "Publishes go on without a restart when the cause is gone; "
            "docs/guides/alerts.md#store-away.",
        )
    if now.get("store_malformed"):
        yield Check(
            "store", WRONG, "The file of the store is damaged.", "fastsse history check; repair."
        )


def _memory(now: Figures) -> Iterator[Check]:
    used, limit = now.get("memory_bytes", 0), now.get("memory_limit_bytes", 0)
    if limit and used >= limit * _NEARLY:
        yield Check(
            "memory",
            WRONG,
            f"Events take {used * 100 // limit} % of memory_limit ({format_size(limit)}); at the "
            "limit publishers get 503.",
            "fastsse topics list --sort bytes names the largest. See memory_limit, history_total, "
            "history_bytes.",
        )


def _room(now: Figures, risen: Figures, past: str) -> Iterator[Check]:
    streams, most = now.get("connections", 0), now.get("max_connections", 0)
    away = _by_reason(risen, "turned_away_")
    count, why = sum(away.values()), _shown(away)
    if most and streams >= most * _NEARLY:
        yield Check(
            "room",
            WRONG if streams >= most else NOTE,
            f"{streams} of {most} streams are open; {count} were turned away {past}.",
            f"fastsse doctor --connections {most * 2} names the next limit; add workers or nodes.",
        )
    elif away:
        yield Check(
            "room",
            NOTE,
            f"{count} streams were turned away {past}: {why}.",
            "full: descriptors, max_connections; limited: the limits of a client; filters: "
            "max_filters; draining: a stop.",
        )


def _workers(risen: Figures, past: str) -> Iterator[Check]:
    if lost := risen.get("workers_lost", 0):
        yield Check(
            "workers",
            NOTE,
            f"Workers ended {past}: {lost}. Their streams went to others.",
            "The supervisor's log has the status or the signal. For signal 9 look at dmesg.",
        )


def _clock(now: Figures, risen: Figures, past: str) -> Iterator[Check]:
    ahead_ms = now.get("positions_ahead_ms", 0)
    if ahead_ms > _AHEAD_MS:
        yield Check(
            "clock",
            NOTE,
            f"Ids are {format_duration(ahead_ms // 1000)} ahead of the clock, which was set back.",
            "Nothing is lost: ids go on where they were. Tokens and history_age follow the clock; "
            "chronyc tracking.",
        )
    elif risen.get("clock_jumps"):
        yield Check(
            "clock",
            NOTE,
            f"The clock of the machine was changed {past}.",
            "Tokens expire and history_age evicts by the clock; chronyc tracking.",
        )


def _certificate(now: Figures, unix_s: float) -> Iterator[Check]:
    expires_s = now.get("tls_expires_s")
    if expires_s is None or expires_s - unix_s > _SOON_S:
        return
    left_s = round(expires_s - unix_s)
    if left_s > _HOUR_S:
        left_s -= left_s % _HOUR_S
    do = "Renew it, then fastsse reload: no stream ends."
    if left_s <= 0:
        yield Check("certificate", WRONG, "A certificate has expired: clients refuse it.", do)
    else:
        says = f"A certificate expires in {format_duration(left_s)}."
        yield Check("certificate", NOTE, says, do)


def _sources(now: Figures) -> Iterator[Check]:
    away = [key.removeprefix(_SOURCE_UP) for key in now if key.startswith(_SOURCE_UP)]
    away = sorted(name for name in away if not now[_SOURCE_UP + name])
    if away:
        says = f"Sources can't be read: {', '.join(away)}."
        yield Check("sources", WRONG, says, "fastsse source list says why.")


def _clients(now: Figures, risen: Figures, past: str) -> Iterator[Check]:
    blocked, lagged = now.get("blocked", 0), risen.get("closed_lagged", 0)
    if blocked or lagged:
        yield Check(
            "slow clients",
            NOTE,
            f"Clients that do not read now: {blocked}; disconnected for lag {past}: {lagged}.",
            "fastsse connections --blocked lists them. See lag_policy, max_lag and filters.",
        )
    if loops := risen.get("repeated_resumes", 0):
        yield Check(
            "loop",
            NOTE,
            f"Clients resumed after the same id again and again {past}: {loops} times. They fail "
            "at the event behind it.",
            "The log names them; max_event, where their reader has a limit for a line.",
        )
    ended = {
        reason: count
        for reason, count in _by_reason(risen, "closed_").items()
        if reason in _ENDINGS
    }
    if ended:
        yield Check(
            "endings",
            NOTE,
            f"Streams were ended {past}: {_shown(ended)}.",
            " ".join(_ENDINGS[reason] for reason in ended),
        )
    if silent := risen.get("closed_no_pong", 0):
        yield Check(
            "silent pages",
            NOTE,
            f"{silent} pages answered no ping {past}: a proxy may hold events back.",
            "fastsse doctor --url URL, with the address that the pages use.",
        )


def _late(now: Figures) -> Iterator[Check]:
    for key, what in (("loop_lag_us", "The event loop"), ("sender_lag_us", "The sender")):
        if now.get(key, 0) > _LATE_US:
            says = f"{what} of a worker is {now[key] / 1e6:.1f} s late."
            yield Check(
                "late",
                NOTE,
                says,
                "Look at the CPU of each process and at interceptors; add workers.",
            )


def _requests(risen: Figures, past: str) -> Iterator[Check]:
    counts: Counter[tuple[str, str]] = Counter()
    for key, count in risen.items():
        if key.startswith("requests_"):
            route, _, status = key.removeprefix("requests_").rpartition(" ")
            counts[status, route] += count
    for (status, route), count in counts.most_common():
        if status in _REJECTED and count >= _REJECTED_MIN:
            says = f"{count} requests to {route} were answered with {status} {past}."
            yield Check("requests", NOTE, says, _REJECTED[status])
        elif status == "500":
            says = f"{count} requests to {route} failed {past}."
            yield Check("requests", WRONG, says, "The log has `A request failed.` with a stack.")


def _publishers(risen: Figures, past: str) -> Iterator[Check]:
    counts = _by_reason(risen, "refused_")
    if counts:
        do = " ".join(_REFUSED[reason] for reason in counts if reason in _REFUSED)
        yield Check(
            "publishers",
            NOTE,
            f"Publishes were refused {past}: {_shown(counts)}.",
            do or "docs/guides/operating.md#metrics-and-alerts says what each reason means.",
        )


def _by_reason(risen: Figures, prefix: str) -> dict[str, int]:
    return {
        key.removeprefix(prefix): count
        for key, count in sorted(risen.items())
        if key.startswith(prefix) and count
    }


def _shown(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in counts.items())
