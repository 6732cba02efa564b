"""Evidence is judged without a network: each case in words, with the setting that repairs it."""

from dataclasses import replace

import pytest

from fastsse.doctor import Finding, Verdict
from fastsse.doctor.path import TrialTiming, judge
from fastsse.doctor.path.evidence import Evidence, OpeningEvidence, Resumed, Timed, Watched
from fastsse.doctor.path.judge import summary
from fastsse.doctor.path.proxies import PROXIES, ProxyTrouble, remedies, seen
from fastsse.doctor.path.stream import End

PACE = TrialTiming(timed_events=4)
HEARTBEAT_S = 15.0
HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
}
OPENING = OpeningEvidence(200, HEADERS, first_byte_after_s=0.02, is_fastsse=True)
PROMPT = Timed("", True, (0.001, 0.002, 0.003, 0.004))
WHOLE = Resumed((1, 2, 3))
HELD = Watched(75.0, 1.01, 0)
GOOD = Evidence(
    OPENING,
    timed=(PROMPT,),
    away_events=3,
    by_header=WHOLE,
    busy=HELD,
    quiet=Watched(75.0, 15.0, 5),
)


def found(evidence: Evidence) -> dict[str, Finding]:
    return {finding.name: finding for finding in judge(evidence, PACE, HEARTBEAT_S)}


def test_good_evidence_is_fit() -> None:
    findings = judge(GOOD, PACE, HEARTBEAT_S)
    assert {finding.verdict for finding in findings} == {Verdict.OK}
    assert list(summary(findings)) == [("This path is fit for event streams.", "green")]


def test_a_refused_certificate_is_not_called_an_absent_server() -> None:
    problem = "the certificate is not accepted: self-signed certificate"
    refused = found(Evidence(OpeningEvidence(problem=problem)))["answer"]
    assert refused.verdict is Verdict.FAIL
    assert "Nothing answers" not in refused.why
    assert "SSL_CERT_FILE" in refused.how
    away = found(Evidence(OpeningEvidence(problem="connection refused")))["answer"]
    assert "server runs" in away.how


def test_a_refused_publish_asks_for_a_token_first() -> None:
    finding = found(replace(GOOD, publishing="401 Unauthorized"))["publishing"]
    assert finding.how.index("--token") < finding.how.index("--publish-url")


def test_what_spoils_streams_is_summed_up() -> None:
    findings = judge(replace(GOOD, by_header=Resumed()), PACE, HEARTBEAT_S)
    assert [line for line, _ in summary(findings)] == ["This path spoils event streams: resume."]


def test_events_that_are_late_or_missing_were_held_back() -> None:
    for delays in ((0.1, 0.1, 0.1, 1.5), (0.1, 0.1, 0.1, None), (None,) * 4):
        finding = found(replace(GOOD, timed=(Timed("", True, delays),)))["buffering"]
        assert finding.verdict is Verdict.FAIL
        assert "proxy_buffering" in finding.how


def test_events_that_others_overtook_were_lost_not_held() -> None:
    finding = found(replace(GOOD, timed=(Timed("", True, (0.1, None, 0.1, None)),)))["buffering"]
    assert finding.verdict is Verdict.FAIL
    assert "1 never came" in finding.why


@pytest.mark.parametrize(
    ("delays", "lost"),
    [((1.0, 1.0), 0), ((None, None), 0), ((1.0, None), 0), ((None, 1.0), 1)],
)
def test_lost_is_what_a_later_event_overtook(delays: tuple[float | None, ...], lost: int) -> None:
    assert Timed("", True, delays).lost == lost


def test_an_answer_that_can_not_be_read_at_all_is_unknown() -> None:
    timed = Timed("zstd", False, (None,) * 4)
    findings = found(replace(GOOD, opening=replace(OPENING, is_fastsse=False), timed=(timed,)))
    assert findings["answer"].verdict is Verdict.OK
    assert findings["buffering"].verdict is Verdict.UNKNOWN
    assert findings["compression"].value == "zstd"


def test_compression_is_not_blamed_for_what_is_held_back_without_it() -> None:
    held = Timed("gzip", True, (None,) * 4, 4000)
    plainly = Timed("", True, (None,) * 4, 4000)
    findings = found(replace(GOOD, timed=(held, plainly)))
    assert findings["buffering"].verdict is Verdict.FAIL
    assert findings["compression"].verdict is Verdict.WARN


@pytest.mark.parametrize("reason", ["unknown", "future"])
def test_a_gap_of_a_stranger_means_several_servers(reason: str) -> None:
    finding = found(replace(GOOD, by_header=Resumed((), reason), by_query=Resumed((), reason)))
    assert "Several servers" in finding["resume"].why


def test_events_that_came_twice_are_named() -> None:
    twice = Resumed((1, 2, 2, 3))
    finding = found(replace(GOOD, by_header=twice, by_query=twice))["resume"]
    assert finding.verdict is Verdict.FAIL
    assert "twice" in finding.why


def test_a_resume_without_an_answer_is_named() -> None:
    nothing = Resumed(problem="status 502")
    finding = found(replace(GOOD, by_header=nothing, by_query=nothing))["resume"]
    assert finding.value == "status 502"


def test_a_busy_stream_that_is_cut_alone_is_not_the_age_of_both() -> None:
    findings = found(replace(GOOD, busy=replace(HELD, end=End(30.0, 0.1, "reset"))))
    assert findings["busy stream"].verdict is Verdict.FAIL
    assert "same age" not in findings["busy stream"].why
    assert findings["quiet stream"].verdict is Verdict.OK


def test_gaps_in_a_busy_stream_are_a_warning() -> None:
    finding = found(replace(GOOD, busy=replace(HELD, worst_gap_s=3.0)))["busy stream"]
    assert finding.verdict is Verdict.WARN


def test_the_heartbeat_advised_is_half_of_what_the_path_bears() -> None:
    quiet = Watched(42.0, 10.0, 0, End(10.0, 10.0, "ended"))
    finding = found(replace(GOOD, quiet=quiet))["quiet stream"]
    assert "--heartbeat 5s" in finding.how


def test_a_short_watch_says_nothing_about_heartbeats() -> None:
    finding = found(replace(GOOD, quiet=Watched(20.0, 20.0, 0)))["heartbeats"]
    assert finding.verdict is Verdict.UNKNOWN


def test_missing_heartbeats_are_a_failure_once_two_were_due() -> None:
    finding = found(replace(GOOD, quiet=Watched(31.0, 31.0, 0)))["heartbeats"]
    assert finding.verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"server": "nginx/1.25"}, "nginx"),
        ({"server": "Apache/2.4.57 (Debian)"}, "Apache"),
        ({"server": "cloudflare", "cf-ray": "1"}, "Cloudflare"),
        ({"via": "1.1 google"}, "Google Cloud load balancer"),
        ({"via": "1.1 abc.cloudfront.net (CloudFront)"}, "AWS CloudFront"),
        ({"via": "1.1 vegur"}, "Heroku"),
        ({"server": "istio-envoy"}, "Envoy, Istio"),
        ({"via": "1.1 Caddy"}, "Caddy"),
    ],
)
def test_a_proxy_is_known_by_its_headers(headers: dict[str, str], name: str) -> None:
    assert [proxy.name for proxy in seen(headers)] == [name]


def test_no_header_shows_no_proxy() -> None:
    assert seen(HEADERS) == []


@pytest.mark.parametrize("trouble", list(ProxyTrouble))
def test_each_trouble_has_a_remedy_at_several_proxies(trouble: ProxyTrouble) -> None:
    assert len(remedies(trouble, {}).splitlines()) >= 3


def test_a_proxy_that_shows_and_has_no_remedy_leaves_all_in_question() -> None:
    lines = remedies(ProxyTrouble.BUFFERS, {"via": "1.1 vegur"}).splitlines()
    assert len(lines) == sum(ProxyTrouble.BUFFERS in proxy.remedies for proxy in PROXIES)
