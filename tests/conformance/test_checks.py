"""The suite's own checks: a toy hub passes them, and fails exactly those that it breaks."""

from collections.abc import Collection
from pathlib import Path

import pytest

from tests.conformance.toy import Toy  # Makes the suite importable.

from sse_conformance.adapter import load  # isort: skip
from sse_conformance.registry import CHECKS, Result  # isort: skip
from sse_conformance.run import Options, Run, run  # isort: skip

TOY = load(str(Path(__file__).with_name("toy.toml")))
_REPEATS = {
    "resume.header", "resume.parameter", "resume.every_byte", "resume.while_publishing",
    "resume.several_topics", "resume.silent_loss", "auth.private_resume",
}  # fmt: skip
_CLIENTS = {"clients.http_client", "clients.httpx_sse", "clients.sseclient_py", "clients.curl"}
#: What the toy does wrong, and every check that fails for it.
BREAKS: dict[str, Collection[str]] = {
    "content_type": {"wire.head", "clients.httpx_sse"},
    "cached": {"wire.not_cached"},
    "unknown_field": {"wire.fields"},
    "cr": {"wire.line_ends", "wire.inject_cr"},
    "crlf": {"wire.line_ends", "wire.inject_crlf"},
    "strips": {"wire.spaces", "wire.last_line"},
    "empty": {"wire.empty"},
    "ascii": {"wire.utf8", *_CLIENTS},
    "any_bytes": {"wire.not_utf8"},
    "nul": {"wire.nul"},
    "type_injection": {"wire.inject_type"},
    "id_injection": {"wire.inject_id"},
    "no_types": {"wire.type"},
    "nul_in_id": {"wire.nul_in_id"},
    "truncates": {"wire.large"},
    "few_lines": {"wire.many_lines"},
    "no_parameter": {"resume.parameter"},
    "no_ids": {"wire.own_id", "resume.ids", *_REPEATS},
    "repeats_last": _REPEATS,
    "id_before": {"resume.every_byte"},
    "no_opening_id": {"resume.quiet_stream"},
    "silent_gap": {"resume.evicted"},
    "unknown": {"resume.unknown"},
    "unordered": {"fanout.order", "fanout.same_order"},
    "joins_late": {"fanout.joined"},
    "topic_prefix": {"fanout.other_topics"},
    "topic_case": {"fanout.topic_case"},
    "first_topic": {"fanout.several_topics", "resume.several_topics"},
    "twice": {"fanout.once"},
    "drops_silently": {"slow.notices"},
    "large_body": {"overload.large_body"},
    "long_head": {"overload.long_head"},
    "anonymous_publish": {"auth.publish_without"},
    "any_signature_publish": {"auth.signature"},
    "any_signature_subscribe": {"auth.bad_listener"},
    "algorithm_none": {"auth.algorithm_none"},
    "expired": {"auth.expired"},
    "any_topic": {"auth.publish_scope"},
    "leaks_private": {"auth.private"},
    "leaks_private_replay": {"auth.private_resume"},
    "no_host": {"http.no_host"},
    "two_hosts": {"http.two_hosts"},
    "two_lengths": {"http.two_lengths"},
    "bad_length": {"http.bad_length"},
    "space_before_colon": {"http.space_before_colon"},
    "length_and_chunks": {"http.length_and_chunks"},
    "bad_chunk": {"http.bad_chunk"},
    "no_chunks": {"http.chunked_publish"},
    "no_pipelining": {"http.pipelined"},
    "absolute": {"http.absolute_target"},
    "header_case": {"http.header_case"},
    "chunks_to_old": {"http.old_version"},
    "ignores_expect": {"http.expect_continue"},
    "any_method": {"http.methods"},
    "garbage": {"http.garbage"},
}
#: Faults that nearly everything fails for: these checks among them.
WIDE_BREAKS: dict[str, Collection[str]] = {
    "late_head": {"wire.head_at_once"},
    "has_length": {"wire.framing"},
    "lf": {"wire.line_feeds", "wire.colons", "wire.inject_lf"},
    "mixes": {"wire.whole_events"},
    "sends_last": {"fanout.live_only"},
    "blocks": {"slow.others"},
    "tires": {"overload.churn"},
    "one_head": {"overload.half_requests"},
    "first_packet": {"http.byte_by_byte"},
}
#: Short checks that the toy cannot break: they need a process of its own, or node.
_ELSEWHERE = {"slow.closed", "clients.eventsource"}


def run_toy(breaks: Collection[str], only: Collection[str] = ()) -> Run:
    with Toy(breaks) as toy:
        options = Options(address=("127.0.0.1", toy.port), is_short=True, only=tuple(only))
        return run(TOY, options)


def failed(done: Run) -> dict[str, Result]:
    return {result.id: result for result in done.results if result.status == "fail"}


def test_a_correct_hub_passes_every_check() -> None:
    done = run_toy(())
    assert not failed(done)
    untested = {result.id for result in done.results if result.status != "pass"}
    assert untested <= _ELSEWHERE


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_hub_fails_the_checks_of_its_groups_that_it_breaks(name: str) -> None:
    groups = {check.partition(".")[0] for check in BREAKS[name]}
    assert failed(run_toy({name}, groups)).keys() == set(BREAKS[name])


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_hub_fails_exactly_the_checks_that_it_breaks(name: str) -> None:
    found = failed(run_toy({name}))
    assert found.keys() == set(BREAKS[name])
    assert all(result.seen and result.reproduce for result in found.values())


@pytest.mark.parametrize("name", WIDE_BREAKS)
def test_a_hub_with_a_wide_fault_fails_these_checks_too(name: str) -> None:
    assert failed(run_toy({name}, WIDE_BREAKS[name])).keys() == set(WIDE_BREAKS[name])


def test_every_short_check_is_one_that_some_hub_fails() -> None:
    broken = {check for table in (BREAKS, WIDE_BREAKS) for checks in table.values()
              for check in checks}  # fmt: skip
    assert {one.id for one in CHECKS.values() if not one.is_long} - broken == _ELSEWHERE
