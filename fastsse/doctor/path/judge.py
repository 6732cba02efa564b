"""What the evidence means, in words, and what fixes it. No network, no clock."""

import statistics
from collections.abc import Iterator, Mapping, Sequence

from fastsse.client.http import CERTIFICATE_REFUSED
from fastsse.doctor.finding import Finding, Verdict
from fastsse.doctor.path.evidence import Evidence, OpeningEvidence, Resumed, Timed, Watched
from fastsse.doctor.path.proxies import ProxyTrouble, remedies
from fastsse.doctor.path.trial import TrialTiming
from fastsse.doctor.words import size
from fastsse.units import format_duration

# Ends that come as near together, as a share of their age, have the same cause.
_SAME_AGE = 0.2
# So many heartbeats must be missing before a path is blamed for it.
_HEARTBEATS_DUE = 2
_NOBODY_THERE = "Look whether the server runs and the address is right."
_CERTIFICATE = (
    "Serve the whole chain (fullchain.pem) for the name in the address. For an authority of your "
    "own set SSL_CERT_FILE to its certificate."
)
_NOT_SHARED = "Several servers stand behind this address and do not share their events."
_SAME_SERVER = (
    "Send publishers and listeners to the same server (ip_hash, stick-table, session affinity, one "
    "replica), or let the servers share a store."
)
_UPSTREAM_AWAY = "The proxy does not reach the server: look at its address for it."
_STATUS_REMEDIES = {
    401: "Give a token with --token.",
    403: "Give a token with --token, or let the path through.",
    404: "Give the whole address of the events, such as https://example.com/events.",
    502: _UPSTREAM_AWAY,
    503: _UPSTREAM_AWAY,
    504: "The proxy waits for a head that does not come: something holds it back.",
}
_CACHE_HEADERS = ("x-cache", "cf-cache-status", "x-cache-status", "x-proxy-cache")


def judge(evidence: Evidence, pace: TrialTiming, heartbeat_s: float) -> tuple[Finding, ...]:
    """One finding for each thing that was tried; `heartbeat_s` is the server's option."""
    case = _Case(evidence, pace, heartbeat_s)
    return tuple(case.findings())


class _Case:
    def __init__(self, evidence: Evidence, pace: TrialTiming, heartbeat_s: float) -> None:
        self._evidence = evidence
        self._pace = pace
        self._heartbeat_s = heartbeat_s
        self._headers: Mapping[str, str] = evidence.opening.headers

    def findings(self) -> Iterator[Finding]:
        evidence = self._evidence
        yield self._answer(evidence.opening)
        if not _is_stream(evidence.opening):
            return
        yield self._caching(evidence.opening)
        if evidence.publishing:
            yield _publishing(evidence.publishing)
        if evidence.timed:
            yield self._buffering(evidence.timed[-1])
            yield self._compression(evidence.timed)
        if evidence.by_header is not None:
            yield self._resuming(evidence.by_header, evidence.by_query)
        elif evidence.timed and not evidence.publishing:
            yield self._not_resumed()
        if evidence.busy is not None and evidence.quiet is not None:
            yield self._age(evidence.busy, evidence.quiet)
            yield self._silence(evidence.busy, evidence.quiet)
            yield self._heartbeats(evidence.quiet)

    def _remedy(self, trouble: ProxyTrouble) -> str:
        return remedies(trouble, self._headers)

    def _answer(self, opening: OpeningEvidence) -> Finding:
        """Whether a stream begins, and at once."""
        needed = "200, text/event-stream, its first bytes at once"
        if opening.silent:
            return self._held_head("nothing at all", needed)
        if not _is_stream(opening):
            return _no_stream(opening, needed)
        kind = f"200, {self._headers.get('content-type')}"
        first_s = opening.first_byte_after_s
        if opening.shaken_bytes is not None:
            return self._held_head(f"{kind}; after {size(opening.shaken_bytes)} of events", needed)
        if first_s is None or first_s > self._pace.late_s:
            return self._held_head(f"{kind}; first bytes {_after(first_s)}", needed)
        if not opening.is_fastsse and not self._unreadable:
            return Finding(
                "answer",
                Verdict.WARN,
                f"{kind}; first bytes {_after(first_s)}",
                needed,
                "The stream does not open as a fastsse server opens it: is it one?",
                "",
            )
        why = "The stream opens at once."
        return Finding("answer", Verdict.OK, f"{kind}; {_after(first_s)}", needed, why, "")

    def _held_head(self, value: str, needed: str) -> Finding:
        return Finding(
            "answer",
            Verdict.FAIL,
            value,
            needed,
            "The server opens each stream with a few bytes at once. Publishing works; so something "
            "on the way holds the answer back, and browsers don't call the stream open.",
            self._remedy(ProxyTrouble.BUFFERS),
        )

    @property
    def _unreadable(self) -> bool:
        return bool(self._evidence.timed) and not self._evidence.timed[0].readable

    def _caching(self, opening: OpeningEvidence) -> Finding:
        """Whether something keeps answers."""
        headers = opening.headers
        signs = [f"{name}: {headers[name]}" for name in _CACHE_HEADERS if _is_hit(headers, name)]
        if "age" in headers:
            signs.append(f"age: {headers['age']}")
        control = headers.get("cache-control", "")
        if "no-cache" not in control and "no-store" not in control:
            signs.append(f"cache-control: {control or 'removed'}")
        return Finding(
            "caching",
            Verdict.WARN if signs else Verdict.OK,
            "; ".join(signs) or f"cache-control: {control}",
            "no-cache, no-transform as the server sends it",
            "A kept answer shows new clients what others saw, and streams of the past."
            if signs
            else "Nothing on the way shows that it keeps answers.",
            self._remedy(ProxyTrouble.CACHES) if signs else "",
        )

    def _buffering(self, timed: Timed) -> Finding:
        """Whether events come one by one."""
        count = len(timed.delays_s)
        came = [delay for delay in timed.delays_s if delay is not None]
        needed = f"{count} of {count} within {format_duration(self._pace.late_s)}"
        if not timed.readable:
            value = f"in {timed.encoding}, which can't be read here"
            why = "No answer without compression could be had either."
            return Finding("buffering", Verdict.UNKNOWN, value, needed, why, "")
        value = f"{len(came)} of {count} within {format_duration(self._pace.patience_s)}"
        if came:
            middle, most = statistics.median(came), max(came)
            value = f"{len(came)} of {count}, {_ms(middle)} in the middle, {_ms(most)} at most"
        if not timed.is_late(self._pace.late_s):
            why = "Each event leaves the path as it comes."
            return Finding("buffering", Verdict.OK, value, needed, why, "")
        if timed.lost:
            why = f"{timed.lost} never came, though later ones did. {_NOT_SHARED}"
            return Finding("buffering", Verdict.FAIL, value, needed, why, _SAME_SERVER)
        return Finding(
            "buffering", Verdict.FAIL, value, needed, _held_back(timed), self._held_remedy(timed)
        )

    def _held_remedy(self, timed: Timed) -> str:
        trouble = ProxyTrouble.COMPRESSES if timed.encoding else ProxyTrouble.BUFFERS
        return self._remedy(trouble)

    def _compression(self, timed: tuple[Timed, ...]) -> Finding:
        """Whether the path compresses, and whether that holds events back."""
        first = timed[0]
        needed = "none"
        if not first.encoding:
            why = "Nothing on the way compresses the stream, though it was offered."
            return Finding("compression", Verdict.OK, "none", needed, why, "")
        harmful = first.readable and first.is_late(self._pace.late_s)
        cured = len(timed) > 1 and not timed[1].is_late(self._pace.late_s)
        why = "It costs memory for each client and saves little on small events."
        if harmful and cured:
            why = "It is what holds events back: without compression they come at once. " + why
        elif harmful:
            why = "Events are held back with and without it. " + why
        elif first.readable:
            why = "It passes events on at once. " + why
        verdict = Verdict.FAIL if harmful and cured else Verdict.WARN
        remedy = self._remedy(ProxyTrouble.COMPRESSES)
        return Finding("compression", verdict, first.encoding, needed, why, remedy)

    def _resuming(self, by_header: Resumed, by_query: Resumed | None) -> Finding:
        """Whether a client that was cut gets what it missed."""
        count = self._evidence.away_events
        needed = f"the {count} events missed, in order, once"
        if by_header.is_whole(count):
            why = "Last-Event-ID reaches the server; a cut loses nothing."
            value = f"the {count} events missed"
            return Finding("resume", Verdict.OK, value, needed, why, "")
        value = _resumed_text(by_header)
        if by_query is not None and by_query.is_whole(count):
            return Finding(
                "resume",
                Verdict.FAIL,
                f"{value}; with the id in the URL all {count}",
                needed,
                "The header Last-Event-ID does not reach the server: after each cut clients lose "
                "what they missed, and get no notice of it.",
                self._remedy(ProxyTrouble.FORGETS),
            )
        why, how = _lost(by_header)
        return Finding("resume", Verdict.FAIL, value, needed, why, how)

    def _not_resumed(self) -> Finding:
        why = "Events come too late to see what is missing. Fix that first."
        return Finding("resume", Verdict.UNKNOWN, "not tried", "", why, "")

    def _age(self, busy: Watched, quiet: Watched) -> Finding:
        """Whether a stream with traffic stays."""
        held = _ms(busy.held_s)
        gap = f"worst gap {_ms(busy.worst_gap_s)}"
        needed = f"{format_duration(self._pace.watch_s)} and more"
        if busy.end is None and busy.worst_gap_s > self._pace.beat_s + self._pace.late_s:
            why = "Now and then nothing came, though there was an event all the time."
            return Finding("busy stream", Verdict.WARN, f"held {held}, {gap}", needed, why, "")
        if busy.end is None:
            why = f"A stream with an event every {format_duration(self._pace.beat_s)} stays open."
            return Finding("busy stream", Verdict.OK, f"held {held}, {gap}", needed, why, "")
        together = quiet.end is not None and _near(busy.end.age_s, quiet.end.age_s)
        why = f"It was cut ({busy.end.reason}) though events came all the time"
        why += ", and so was the silent stream at the same age: a limit on how long an answer may "
        why += "take, or the server was stopped."
        if not together:
            why = f"It was cut ({busy.end.reason}) though events came all the time."
        why += " Clients resume, but each cut costs a reconnect."
        remedy = self._remedy(ProxyTrouble.AGE)
        return Finding("busy stream", Verdict.FAIL, f"cut after {held}", needed, why, remedy)

    def _silence(self, busy: Watched, quiet: Watched) -> Finding:
        """Whether a stream that only gets heartbeats stays."""
        heartbeat = format_duration(self._heartbeat_s)
        held = _ms(quiet.held_s)
        needed = f"{format_duration(self._pace.watch_s)} and more"
        gap = f"worst gap {_ms(quiet.worst_gap_s)}"
        if quiet.end is None:
            why = (
                f"A stream without events stays open; the server sends a comment every {heartbeat}."
            )
            return Finding("quiet stream", Verdict.OK, f"held {held}, {gap}", needed, why, "")
        if busy.end is not None and _near(busy.end.age_s, quiet.end.age_s):
            why = "Cut together with the busy one: it is not the silence."
            return Finding("quiet stream", Verdict.FAIL, f"cut after {held}", needed, why, "")
        silence = _ms(quiet.end.silence_s)
        return Finding(
            "quiet stream",
            Verdict.FAIL,
            f"cut after {held}, {silence} of them silent",
            needed,
            f"It was cut ({quiet.end.reason}) while one with events stayed: something on the way "
            f"ends streams that are silent for {silence}.",
            f"{_faster_heartbeat(quiet.end.silence_s, self._heartbeat_s)}"
            f"\n{self._remedy(ProxyTrouble.SILENCE)}",
        )

    def _heartbeats(self, quiet: Watched) -> Finding:
        """Whether comments come through."""
        heartbeat = format_duration(self._heartbeat_s)
        due = int(quiet.held_s // self._heartbeat_s)
        needed = f"about {due}" if due >= _HEARTBEATS_DUE else "too short a time to judge"
        value = f"{quiet.comments} in {_ms(quiet.held_s)}"
        if quiet.comments or due < _HEARTBEATS_DUE:
            verdict = Verdict.OK if quiet.comments else Verdict.UNKNOWN
            why = "The server's comments keep silent streams alive."
            return Finding("heartbeats", verdict, value, needed, why, "")
        return Finding(
            "heartbeats",
            Verdict.FAIL,
            value,
            needed,
            f"The server sends a comment every {heartbeat} (its option heartbeat, as far as it is "
            "known here), and none arrives: something filters or holds them back.",
            self._remedy(ProxyTrouble.BUFFERS),
        )


def _is_stream(opening: OpeningEvidence) -> bool:
    kind = opening.headers.get("content-type", "").split(";")[0].strip().lower()
    return opening.status == 200 and kind == "text/event-stream"


def _no_stream(opening: OpeningEvidence, needed: str) -> Finding:
    if opening.problem:
        why, how = "Nothing answers there.", _NOBODY_THERE
        if opening.problem.startswith(CERTIFICATE_REFUSED):
            why, how = "Browsers refuse this certificate too.", _CERTIFICATE
        return Finding("answer", Verdict.FAIL, opening.problem, needed, why, how)
    kind = opening.headers.get("content-type", "no content type")
    value = f"{opening.status}, {kind}"
    why = "That is no event stream."
    first = " ".join(opening.body.split())[:200]
    if first:
        why += f" It says: {first}"
    how = _STATUS_REMEDIES.get(opening.status, "")
    return Finding("answer", Verdict.FAIL, value, needed, why, how)


def _publishing(reason: str) -> Finding:
    return Finding(
        "publishing",
        Verdict.FAIL,
        reason,
        "200",
        "The check publishes events of its own and can't go on without.",
        "Give a token that may publish with --token (fastsse token mint --publish '*'). Where the "
        "proxy lets no publish through, name the server itself: --publish-url http://server:8080.",
    )


def _held_back(timed: Timed) -> str:
    held = "Events are held back"
    if timed.released_bytes is not None:
        held += f" until about {size(timed.released_bytes)} have come together"
    elif None in timed.delays_s:
        held += " for good: even a quarter of a megabyte brings none"
    cause = f"in {timed.encoding}, by whatever compresses" if timed.encoding else "in a buffer"
    return f"{held}, {cause}. Clients see nothing, then all at once."


def _resumed_text(resumed: Resumed) -> str:
    if resumed.problem:
        return resumed.problem
    text = f"events {', '.join(map(str, resumed.numbers))}" if resumed.numbers else "none of them"
    return f"{text}, a gap ({resumed.gap})" if resumed.gap else text


def _lost(resumed: Resumed) -> tuple[str, str]:
    if resumed.gap in ("unknown", "future"):
        return (
            "The server that answered the second time does not know the id of the first. "
            f"{_NOT_SHARED}",
            _SAME_SERVER,
        )
    if resumed.gap:
        return (
            "History no longer reached back to the cut.",
            "fastsse serve --history-events, --history-bytes and --history-age; a rule of "
            "[[topics]] may keep less.",
        )
    if len(set(resumed.numbers)) < len(resumed.numbers):
        return "Events came twice.", "Look for a proxy that repeats requests."
    return (
        "Neither the header nor the URL brings what was missed: several servers stand behind this "
        "address, or something rewrites the URL.",
        "Send a client to the same server each time, and keep the query as it is.",
    )


def _faster_heartbeat(silence_s: float, heartbeat_s: float) -> str:
    """Half of what the path bears; a server's own heartbeat may not have come in time."""
    half_s = max(1, int(min(silence_s, heartbeat_s) // 2))
    return f"fastsse serve --heartbeat {format_duration(half_s)}, or allow longer silence:"


def _near(one_s: float, other_s: float) -> bool:
    return abs(one_s - other_s) <= _SAME_AGE * max(one_s, other_s)


def _is_hit(headers: Mapping[str, str], name: str) -> bool:
    return "hit" in headers.get(name, "").lower()


def _after(seconds: float | None) -> str:
    return "never" if seconds is None else f"after {_ms(seconds)}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def summary(findings: Sequence[Finding]) -> Iterator[tuple[str, str]]:
    """The answer in words, a line and its style each."""
    wrong = [finding.name for finding in findings if finding.verdict is Verdict.FAIL]
    if wrong:
        yield f"This path spoils event streams: {', '.join(wrong)}.", "bold red"
    else:
        yield "This path is fit for event streams.", "green"
