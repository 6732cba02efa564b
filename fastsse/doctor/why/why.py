"""The checks in order."""

from collections.abc import AsyncIterator, Sequence
from typing import Final

import httpx
from httpx import HTTPError

from fastsse.checks import NOTE, OK, UNKNOWN, WRONG, Check
from fastsse.client.http import new_client, request_headers
from fastsse.doctor.finding import Finding, Verdict
from fastsse.doctor.path import TrialTiming, Way, judge, try_path
from fastsse.doctor.why.nodes import of_nodes
from fastsse.doctor.why.opening import base_of, open_stream, ready
from fastsse.doctor.why.question import Question
from fastsse.doctor.why.rights import rights

__all__ = ["why"]

# Without holding streams open: that is the long part of `doctor --url`.
_TRIAL: Final = TrialTiming(timed_events=3, every_s=0.1, watch_s=0.0)
_HEARTBEAT_S: Final = 15.0
_VERDICTS: Final = {
    Verdict.OK: OK,
    Verdict.WARN: NOTE,
    Verdict.FAIL: WRONG,
    Verdict.UNKNOWN: UNKNOWN,
}
# What the trial says of the opening is known already.
_KNOWN: Final = ("answer",)
# With these the requests do not reach the server, so it is not asked.
_ELSEWHERE: Final = frozenset({"reach", "redirect", "proxy", "content type", "host"})


async def why(question: Question) -> AsyncIterator[Check]:
    """Gives each check when it is made; the first wrong one is the cause to begin with. Nothing is
    published but to topics of the trial's own."""
    # Before the stream is opened, which would make the topic known there.
    of_server = await _of_server(question)
    opening = await open_stream(question)
    wrong = [check.name for check in opening.checks if check.verdict == WRONG]
    if wrong[:1] == ["proxy"] and (unready := await ready(question)) is not None:
        yield unready
    for check in opening.checks:
        yield check
    for check in rights(question):
        yield check
    if not _ELSEWHERE.intersection(wrong):
        for check in of_server:
            yield check
    if opening.is_open and question.tries_path:
        nodes = await of_nodes(question)
        if nodes is not None:
            yield nodes
        for check in await _of_path(question):
            yield check


async def _of_server(question: Question) -> Sequence[Check]:
    """What the operator's side says of the topic."""
    headers = request_headers(question.operator or question.token, None)
    url = f"{base_of(question.url)}/admin/explain"
    async with new_client(None) as client:
        try:
            answer = await client.get(url, params={"topic": question.topic}, headers=headers)
            if answer.status_code == httpx.codes.OK:
                return [Check(**check) for check in answer.json()["checks"]]
        except (HTTPError, ValueError, TypeError, KeyError):
            pass
    return [
        Check(
            "server",
            UNKNOWN,
            "Without a console role the server says nothing of the topic: --operator.",
            '--operator "$(fastsse token mint --console read)", or the console password.',
        )
    ]


async def _of_path(question: Question) -> Sequence[Check]:
    """Publishes and listens through the path, to topics of its own."""
    url = question.url.partition("?")[0]
    way = Way(url, question.publish_url or url, question.token)
    evidence = await try_path(way, _TRIAL)
    if evidence.publishing:
        return [
            Check(
                "path",
                UNKNOWN,
                f"Nothing could be published through this path: {evidence.publishing.rstrip('.')}.",
                "fastsse doctor --url URL --publish-url SERVER tries it.",
            )
        ]
    return [
        _of_finding(one) for one in judge(evidence, _TRIAL, _HEARTBEAT_S) if one.name not in _KNOWN
    ]


def _of_finding(finding: Finding) -> Check:
    verdict = _VERDICTS[finding.verdict]
    says = f"{finding.value}. {finding.why}" if finding.why else f"{finding.value}."
    return Check(finding.name, verdict, says, finding.how if verdict != OK else "")
