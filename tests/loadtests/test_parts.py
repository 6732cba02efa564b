"""The parts that are plain functions of their arguments."""

import argparse
import ast
import dataclasses
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsse.swarm import Histogram, SwarmResults, _swarm
from fastsse.swarm.request_template import split_at_numbers
from loadtests.account import MEASURES, Account
from loadtests.exact import Exact
from loadtests.options import READERS, reader_weights
from loadtests.scenarios import SCENARIOS, fill
from loadtests.shapes import SHAPES, readers_at
from tests.loadtests.conftest import ROOT

scenarios = pytest.mark.parametrize("name", SCENARIOS)

# --- readers ----------------------------------------------------------------------------------


def test_a_reader_sends_what_a_browser_sends() -> None:
    """As `test_a_page_that_is_cut_before_its_first_event_resumes` sees Chromium do."""
    # Locust patches the process that imports it.
    program = (
        "from types import SimpleNamespace\nfrom loadtests.readers import SseUser\n"
        "reader = SimpleNamespace(decoder=SimpleNamespace(last_event_id='5-1'))\n"
        "print(dict(SseUser._headers(reader)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ast.literal_eval(done.stdout.splitlines()[-1]) == {
        "Accept": "text/event-stream",
        "Cache-Control": "no-cache",
        "Last-Event-ID": "5-1",
    }


# --- scenarios -----------------------------------------------------------------------------------


@scenarios
@settings(deadline=None)
@given(population=st.integers(1, 300), reader=st.integers(0, 10_000), group=st.integers(1, 500))
def test_what_a_reader_follows_is_published_while_there_are_readers_for_it(
    name: str, population: int, reader: int, group: int
) -> None:
    scenario = dataclasses.replace(SCENARIOS[name], population=population, group=group)
    followed = scenario.topics_of(reader)
    assert len(followed) == len(set(followed))
    assert name == "notifications" or set(followed) <= set(scenario.published())
    if reader < population:
        assert set(followed) <= set(scenario.published())


@scenarios
def test_every_published_topic_has_a_reader(name: str) -> None:
    scenario = SCENARIOS[name]
    followed = {t for reader in range(scenario.population) for t in scenario.topics_of(reader)}
    assert followed == set(scenario.published())


def test_each_user_has_a_topic_of_their_own_across_groups() -> None:
    scenario = dataclasses.replace(SCENARIOS["notifications"], population=25, group=10)
    own = [scenario.topics_of(reader)[0] for reader in range(25)]
    assert len(set(own)) == 25
    assert own[12] == "user/1/2"


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_template_means_for_python_readers_what_it_means_for_the_swarm(
    number: int, modulus: int
) -> None:
    template = f"a/{{n}}/b{{n%{modulus}}}/c"
    native = b"".join(
        text + (b"" if i == 2 else b"%d" % (number % m if m else number))
        for i, (text, m) in enumerate(split_at_numbers(template.encode()))
    )
    assert fill(template, number).encode() == native


# --- shapes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@settings(deadline=None)
@given(progress=st.floats(0, 1), peak=st.integers(1, 10**6))
def test_a_shape_never_wants_more_than_the_peak_nor_none(
    shape: str, progress: float, peak: int
) -> None:
    assert 1 <= readers_at(shape, progress, peak) <= peak


def test_a_ramp_only_rises_and_reaches_the_peak() -> None:
    counts = [readers_at("ramp", i / 1000, 10_000) for i in range(1001)]
    assert counts == sorted(counts)
    assert (counts[0], counts[600], counts[-1]) == (500, 10_000, 10_000)
    assert len(set(counts)) == 20


def test_a_spike_is_in_the_middle() -> None:
    assert [readers_at("spike", p, 100) for p in (0.0, 0.39, 0.4, 0.59, 0.6, 1.0)] == [
        *(10, 10, 100, 100, 10, 10)
    ]


# --- exact figures -------------------------------------------------------------------------------

values = st.lists(st.none() | st.integers(0, 2**33))


@settings(deadline=None)
@given(st.lists(values, max_size=4))
def test_merging_processes_loses_nothing(processes: list[list[int | None]]) -> None:
    whole, merged = Exact(), Exact()
    for observed in processes:
        part = Exact()
        for value in observed:
            part.note(("sse", "delivery"), value, failed=value is None)
            whole.note(("sse", "delivery"), value, failed=value is None)
        merged.merge(part.take())
        assert part.take() == []
    key = ("sse", "delivery")
    assert merged.entries[key].buckets == whole.entries[key].buckets
    flat = [value for observed in processes for value in observed]
    assert merged.entries[key].count == len(flat)
    assert merged.entries[key].failed == merged.entries[key].untimed == flat.count(None)


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**33)))
def test_percentiles_of_sparse_buckets_are_the_histograms(observed: list[int]) -> None:
    exact = Exact()
    for value in observed:
        exact.note(("sse", "open"), value)
    entry, percents = exact.entries["sse", "open"], (0, 50, 90, 99, 99.9)
    assert entry.percentiles_us(*percents) == entry.histogram().percentiles_us(*percents)
    assert entry.percentiles_us(100) == [entry.histogram().max_us()]


# --- a swarm's account ---------------------------------------------------------------------------


class _Sums:
    """In the ledger's place: what was entered in total."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.untimed: Counter[str] = Counter()
        self.buckets: dict[str, Counter[int]] = defaultdict(Counter)
        self.states: Counter[str] = Counter()

    def many(
        self, key: tuple[str, str], values: Histogram | None, untimed: int = 0, size_bytes: int = 0
    ) -> None:
        for bucket, count in values.filled() if values is not None else ():
            self.buckets[key[1]][bucket] += count
            self.counts[key[1]] += count
        self.counts[key[1]] += untimed
        self.untimed[key[1]] += untimed

    def faults(self, key: tuple[str, str], says: str, count: int) -> None:
        self.counts[key[1]] += count

    def moved(self, state: str, by: int) -> None:
        self.states[state] += by


class _Looks:
    """In the crew's place: histograms may be read later than counters."""

    def __init__(self, counters: dict[str, int], measures: dict[str, Histogram]) -> None:
        self._counters, self._measures = counters, measures

    def counters(self) -> dict[str, int]:
        return dict(self._counters)

    def measure(self, name: str) -> Histogram:
        return self._measures[name]


def _histogram(count: int) -> Histogram:
    buckets = [0] * _swarm.HISTOGRAM_BUCKETS
    buckets[1000] = count
    return Histogram(buckets)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=6), st.integers(0, 5))
def test_what_a_swarm_accounts_for_is_its_own_sum_whenever_it_was_looked_at(
    steps: list[tuple[int, int]], unstamped: int
) -> None:
    sums = _Sums()
    account = Account(sums, conflates=False)  # type: ignore[arg-type]
    events = timed = 0
    for counted, measured in steps:
        events, timed = events + counted, min(timed + measured, events + counted + 3)
        counters = dict.fromkeys(_swarm.COUNTER_NAMES, 0) | {
            "events": events, "stamped": events, "stream": 7, "end_eof": events,
        }  # fmt: skip
        measures = {name: _histogram(timed) for name in MEASURES}
        account.look(_Looks(counters, measures))  # type: ignore[arg-type]
        assert events <= sums.counts["delivery"] <= max(events, timed)
        assert sums.states["open"] == 7
    events = max(events, timed) + unstamped
    last = dict.fromkeys(_swarm.COUNTER_NAMES, 0) | {"events": events, "end_eof": events}
    account.close(SwarmResults(last, {name: _histogram(timed) for name in _swarm.MEASURE_NAMES}))
    assert sums.counts["delivery"] == events
    assert sums.untimed["delivery"] == events - timed
    assert sums.buckets["delivery"] == Counter({1000: timed} if timed else {})
    assert sums.counts["ended"] == events
    assert not any(sums.states.values())


# --- options and profiles ------------------------------------------------------------------------


def test_readers_are_chosen_with_weights() -> None:
    assert reader_weights("SseUser=8, SlowReader") == {"SseUser": 8, "SlowReader": 1}


@pytest.mark.parametrize("text", ["", "SseUser=0", "SseUser=x", "Publisher", "SseUser=-1"])
def test_readers_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        READERS(text)


READ_PROFILES = """
import sys, locust
from locust.argument_parser import get_parser
from loadtests.options import Options, add_options
locust.events.init_command_line_parser.add_listener(lambda parser, **_: add_options(parser))
for profile in sys.argv[1:]:
    parsed = get_parser(default_config_files=[]).parse_args(["--config", profile])
    options = Options.of(parsed)
    assert parsed.locustfile == "loadtests/locustfile.py"
    print(parsed.num_users - options.publishers, options.streams)
"""


def test_every_profile_is_read_and_explained() -> None:
    profiles = sorted((ROOT / "loadtests/profiles").glob("*.toml"))
    told = subprocess.run(
        [sys.executable, "-c", READ_PROFILES, *map(str, profiles)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert len(told.stdout.splitlines()) == len(profiles) > 5
    readme = Path(ROOT / "loadtests/README.md").read_text()
    missing = [p.stem for p in profiles if f"`{p.stem}`" not in readme]
    assert missing == []


def test_every_option_is_explained() -> None:
    readme = (ROOT / "loadtests/README.md").read_text()
    source = (ROOT / "loadtests/options.py").read_text()
    options = {line.split('"')[1] for line in source.splitlines() if 'add("--' in line}
    assert len(options) > 15
    assert [option for option in sorted(options) if f"`{option}" not in readme] == []
