"""What proxies do to streams is found over real sockets, distinguished, and a remedy is named."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from fastsse.config import Config, options
from fastsse.doctor import Finding, Verdict
from fastsse.doctor.path import TrialTiming, Way, judge, try_path
from fastsse.server import Server
from tests.doctor.badproxy import BadProxy, Manners
from tests.streamserver import StreamServer, answering, streaming

ROOT = Path(__file__).parents[2]
HEARTBEAT_S = 0.1
# Short where nothing can come; what is late must be late on a busy machine as well.
QUICK = TrialTiming(
    timed_events=4, every_s=0.02, late_s=1.0, patience_s=2.0, watch_s=0.0, beat_s=0.05
)
HELD = replace(QUICK, late_s=0.3, patience_s=0.5)
WATCHING = replace(QUICK, watch_s=1.5)
Found = dict[str, Finding]


@pytest.fixture(autouse=True)
def _no_proxies_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def server(stack: AsyncExitStack, **options: object) -> str:
    """The address of a real server."""
    defaults = {"port": 0, "drain": 0, "heartbeat": HEARTBEAT_S}
    running = await stack.enter_async_context(Server(Config(**{**defaults, **options})))
    return running.addresses[0]


async def behind(stack: AsyncExitStack, manners: Manners, **options: object) -> str:
    """The address of a proxy in front of a real server."""
    url = await server(stack, **options)
    return (await stack.enter_async_context(BadProxy(manners, url))).url


async def check(
    url: str, pace: TrialTiming, *, publish_url: str | None = None, token: str | None = None
) -> Found:
    evidence = await try_path(Way(url, publish_url or url, token), pace)
    return {finding.name: finding for finding in judge(evidence, pace, HEARTBEAT_S)}


def verdicts(found: Found) -> dict[str, str]:
    return {name: str(finding.verdict) for name, finding in found.items()}


async def test_a_server_without_a_proxy_passes_every_check(stack: AsyncExitStack) -> None:
    found = await check(await server(stack), WATCHING)
    assert verdicts(found) == dict.fromkeys(
        (
            *("answer", "caching", "buffering", "compression", "resume"),
            *("busy stream", "quiet stream", "heartbeats"),
        ),
        "ok",
    )


async def test_a_proxy_with_good_manners_passes_every_check(stack: AsyncExitStack) -> None:
    found = await check(await behind(stack, Manners()), WATCHING)
    assert set(verdicts(found).values()) == {"ok"}


async def test_a_buffer_is_found_with_its_size_and_the_setting_for_it(
    stack: AsyncExitStack,
) -> None:
    found = await check(await behind(stack, Manners(holds_bytes=6000)), HELD)
    # The opening block is held back too, by the same buffer.
    assert found["answer"].verdict is Verdict.FAIL
    buffering = found["buffering"]
    assert buffering.verdict is Verdict.FAIL
    assert "until about 7.81 KiB" in buffering.why
    assert buffering.how.startswith("nginx: proxy_buffering off;")
    assert "HAProxy" not in buffering.how
    assert found["resume"].verdict is Verdict.UNKNOWN


async def test_a_head_that_is_held_back_is_not_taken_for_silence(stack: AsyncExitStack) -> None:
    manners = Manners(holds_bytes=3000, holds_head=True)
    found = await check(await behind(stack, manners), HELD)
    assert found["answer"].verdict is Verdict.FAIL
    assert "after 3.91 KiB of events" in found["answer"].value
    assert "proxy_buffering" in found["answer"].how


async def test_an_answer_that_never_comes_though_publishing_works_is_held_back(
    stack: AsyncExitStack,
) -> None:
    manners = Manners(holds_bytes=10**9, holds_head=True)
    pace = replace(HELD, late_s=0.05)
    found = await check(await behind(stack, manners), pace)
    assert found["answer"].value == "nothing at all"
    assert "Publishing works" in found["answer"].why


async def test_every_proxys_remedy_is_named_where_none_shows(stack: AsyncExitStack) -> None:
    manners = Manners(holds_bytes=3000, adds={})
    found = await check(await behind(stack, manners), HELD)
    for name in ("nginx", "Apache", "Caddy", "Traefik", "Cloudflare"):
        assert f"{name}: " in found["buffering"].how


async def test_delaying_compression_is_distinguished_from_a_buffer(
    stack: AsyncExitStack,
) -> None:
    found = await check(await behind(stack, Manners(compresses="held")), HELD)
    assert found["compression"].verdict is Verdict.FAIL
    assert found["compression"].value == "gzip"
    assert "gzip off" in found["compression"].how
    # Without compression the same path is quick, so nothing else is to blame.
    assert found["buffering"].verdict is Verdict.OK
    assert found["resume"].verdict is Verdict.OK


async def test_compression_that_passes_events_on_is_a_warning(stack: AsyncExitStack) -> None:
    found = await check(await behind(stack, Manners(compresses="flushed")), QUICK)
    assert found["compression"].verdict is Verdict.WARN
    assert found["buffering"].verdict is Verdict.OK


async def test_an_unknown_encoding_is_avoided(stack: AsyncExitStack) -> None:
    found = await check(await behind(stack, Manners(encoding="snappy")), QUICK)
    assert found["compression"].value == "snappy"
    assert found["compression"].verdict is Verdict.WARN
    assert found["buffering"].verdict is Verdict.OK


async def test_a_limit_on_age_is_distinguished_from_one_on_silence(stack: AsyncExitStack) -> None:
    found = await check(await behind(stack, Manners(cuts_after_s=0.7)), WATCHING)
    assert found["busy stream"].verdict is Verdict.FAIL
    assert "at the same age" in found["busy stream"].why
    assert "not the silence" in found["quiet stream"].why
    assert found["buffering"].verdict is Verdict.OK


async def test_a_limit_on_silence_is_found_with_its_length(stack: AsyncExitStack) -> None:
    url = await behind(stack, Manners(cuts_silence_s=0.7), heartbeat="10s")
    found = await check(url, replace(WATCHING, watch_s=2.0))
    assert found["busy stream"].verdict is Verdict.OK
    quiet = found["quiet stream"]
    assert quiet.verdict is Verdict.FAIL
    assert "silent" in quiet.value
    assert "proxy_read_timeout" in quiet.how
    assert "--heartbeat" in quiet.how


async def test_heartbeats_keep_a_stream_alive_through_a_limit_on_silence(
    stack: AsyncExitStack,
) -> None:
    found = await check(await behind(stack, Manners(cuts_silence_s=1.0)), WATCHING)
    assert found["quiet stream"].verdict is Verdict.OK
    assert found["heartbeats"].verdict is Verdict.OK


async def test_comments_that_are_filtered_are_missed(stack: AsyncExitStack) -> None:
    found = await check(await behind(stack, Manners(filters_comments=True)), WATCHING)
    assert found["heartbeats"].verdict is Verdict.FAIL
    assert found["buffering"].verdict is Verdict.OK


async def test_a_dropped_last_event_id_is_distinguished_from_lost_history(
    stack: AsyncExitStack,
) -> None:
    found = await check(await behind(stack, Manners(drops=("last-event-id",))), QUICK)
    resume = found["resume"]
    assert resume.verdict is Verdict.FAIL
    assert resume.value == "none of them; with the id in the URL all 3"
    assert "does not reach the server" in resume.why
    assert "Last-Event-ID" in resume.how


async def test_history_that_is_not_kept_shows_as_a_gap(stack: AsyncExitStack) -> None:
    found = await check(await server(stack, history_events=1), QUICK)
    assert found["resume"].verdict is Verdict.FAIL
    assert "a gap (evicted)" in found["resume"].value
    assert "--history-events" in found["resume"].how


async def test_two_servers_that_share_nothing_are_found_out(stack: AsyncExitStack) -> None:
    urls = [await server(stack), await server(stack)]
    proxy = await stack.enter_async_context(BadProxy(Manners(), *urls))
    found = await check(proxy.url, HELD)
    assert found["buffering"].verdict is Verdict.FAIL
    assert "do not share" in found["buffering"].why
    assert "same server" in found["buffering"].how


async def test_an_answer_from_a_cache_is_a_warning(stack: AsyncExitStack) -> None:
    manners = Manners(adds={"Age": "7", "X-Cache": "HIT"}, removes=("cache-control",))
    found = await check(await behind(stack, manners), QUICK)
    caching = found["caching"]
    assert caching.verdict is Verdict.WARN
    assert caching.value == "x-cache: HIT; age: 7; cache-control: removed"


async def test_a_path_without_publishing_says_how_to_go_round(stack: AsyncExitStack) -> None:
    upstream = await server(stack)
    manners = Manners(refuses_posts=True)
    proxy = await stack.enter_async_context(BadProxy(manners, upstream))
    found = await check(proxy.url, QUICK)
    assert found["publishing"].verdict is Verdict.FAIL
    assert "--publish-url" in found["publishing"].how
    found = await check(proxy.url, QUICK, publish_url=upstream)
    assert set(verdicts(found).values()) == {"ok"}


async def test_a_token_is_sent_where_one_is_needed(stack: AsyncExitStack) -> None:
    url = await server(stack, publish_token="secret")
    assert (await check(url, QUICK))["publishing"].verdict is Verdict.FAIL
    assert "publishing" not in await check(url, QUICK, token="secret")


async def test_a_missing_server_is_reported_at_once() -> None:
    found = await check("http://127.0.0.1:9", QUICK)
    assert list(found) == ["answer"]
    assert found["answer"].value == "connection refused"


@pytest.mark.parametrize(
    ("status", "advice"),
    [("401 Unauthorized", "--token"), ("404 Not Found", "whole address"), ("502 Oh", "the server")],
)
async def test_an_answer_that_is_no_stream_is_explained(status: str, advice: str) -> None:
    page = b"<p>a page  of\nwords</p>"
    async with StreamServer(answering(status, page, b"Content-Type: text/html\r\n")) as other:
        found = await check(other.url, QUICK)
    assert list(found) == ["answer"]
    assert found["answer"].value == f"{status[:3]}, text/html"
    assert advice in found["answer"].how
    assert "a page of words" in found["answer"].why


async def test_a_stream_that_is_not_ours_is_doubted(stack: AsyncExitStack) -> None:
    other = await stack.enter_async_context(StreamServer(streaming(b"data: x\n\n", hold=True)))
    found = await check(other.url, HELD, publish_url=await server(stack))
    assert found["answer"].verdict is Verdict.WARN
    assert "is it one?" in found["answer"].why


async def run(*arguments: str) -> tuple[int, str, str]:
    """The command as users run it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FASTSSE_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fastsse", "doctor", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**environment, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_the_command_says_that_a_path_is_fit(stack: AsyncExitStack) -> None:
    status, out, err = await run("--url", await server(stack), "--watch", "0")
    assert (status, err) == (0, "")
    assert out.startswith("The path to http://127.0.0.1:")
    assert "\nok       buffering: 8 of 8" in out
    assert out.endswith("This path is fit for event streams.\n")


async def test_the_command_fails_on_a_path_that_spoils_streams(stack: AsyncExitStack) -> None:
    url = await behind(stack, Manners(drops=("last-event-id",)))
    status, out, _ = await run("--url", url, "--watch", "0", "--json")
    path = json.loads(out)["path"]
    assert status == 1
    assert not path["fit"]
    failed = {f["name"] for f in path["findings"] if f["verdict"] == "fail"}
    # On a busy machine the stream may also open late, which fails as `answer`.
    assert failed - {"answer"} == {"resume"}
    assert path["evidence"]["opening"]["headers"]["server"] == "nginx"
    assert "machine" not in json.loads(out)


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_a_trial_leaves_nothing_in_history(
    stack: AsyncExitStack, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = options.trial_rule().model_copy(update={"history_age": 0.5})
    monkeypatch.setattr(options, "trial_rule", lambda: rule)
    options_of_store = {} if store == "memory" else {"store": f"sqlite:{tmp_path}/h.db"}
    url = await server(stack, history_age="30d", **options_of_store)
    async with httpx.AsyncClient() as client:
        await client.post(f"{url}/events", params={"topic": "orders"}, content="1")
        assert (await check(url, QUICK))["resume"].verdict is not Verdict.FAIL

        async def kept() -> object:
            name = "stored_events" if options_of_store else "history_events"
            text = (await client.get(f"{url}/metrics")).text
            return re.findall(rf"^fastsse_{name} (\S+)", text, re.MULTILINE)

        async with asyncio.timeout(60):
            while await kept() != ["1.0"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


def test_what_a_trial_publishes_is_kept_for_a_minute_at_most() -> None:
    rules = [{"match": "*", "history_age": "30d"}]
    config = Config(topics=rules)
    assert config.limits("fastsse-doctor/1/resume").age_s == 60
    assert config.limits("fastsse-doctors").age_s == 30 * 86_400


async def test_a_trial_on_other_topics_says_that_its_events_stay(stack: AsyncExitStack) -> None:
    status, _, err = await run(
        "--url", await server(stack), "--watch", "0", "--topic", "fastsse-doctors"
    )
    assert (status, err) == (
        0,
        "The events of this check stay in the history of fastsse-doctors/….\n",
    )
