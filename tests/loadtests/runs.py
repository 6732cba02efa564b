"""The runs that tests look at, each as a command line of Locust's and one of the server's."""

from dataclasses import dataclass

STREAMS = 100
READERS = 4
"""Python readers next to the one swarm of a scenario's run."""

HEADLESS = ("--headless", "--only-summary", "-t", "90s", "-r", "100")
SMALL = (
    *HEADLESS,
    *("-u", "6", "--readers", f"SwarmUser=1,SseUser={READERS}", "--streams", str(STREAMS)),
    *("--publish-for", "1s"),
)


@dataclass(frozen=True)
class Run:
    """Options of Locust, with `{port}` for a free port and `{python}`, and of the server.

    Runs of one `server_name` share a server; it is None for runs that have none.
    """

    options: tuple[str, ...]
    server_name: str | None
    server: tuple[str, ...] = ()


SHARED = ("scenarios", ("--config", "loadtests/servers/ticks.toml"))
"""Their topics differ."""

RUNS = {
    "news": Run((*SMALL, "--scenario", "news", "--rate", "20/s"), *SHARED),
    "ticks": Run(
        (*SMALL, "--scenario", "ticks", "--population", "100", "--rate", "300/s"), *SHARED
    ),
    "notifications": Run(
        (*SMALL, "--scenario", "notifications", "--population", "100", "--rate", "202/s"),
        *SHARED,
    ),
    "log": Run((*SMALL, "--scenario", "log", "--population", "10", "--rate", "200/s"), *SHARED),
    "mix": Run(
        (
            *HEADLESS,
            *("-u", "8", "--readers", "SseUser=2,SlowReader=2,Reconnector=3"),
            *("--scenario", "log", "--population", "1", "--rate", "100/s", "--publish-for", "3s"),
            *("--event-size", "8000", "--stay", "300ms", "--slow-rate", "50KB"),
        ),
        "mix",
        ("--max-lag", "64KiB", "--max-lag-time", "500ms", "--retry", "100ms"),
    ),
    "distributed": Run(
        (
            *HEADLESS,
            *("--processes", "2", "--master-bind-host", "127.0.0.1", "--master-host", "127.0.0.1"),
            *("--master-bind-port", "{port}", "--master-port", "{port}"),
            *("-u", "7", "--readers", "SwarmUser=1,SseUser=2", "--streams", str(STREAMS)),
            *("--rate", "20/s", "--publish-for", "1s"),
        ),
        "distributed",
    ),
    "restart": Run(
        (
            *("--headless", "--only-summary", "-r", "100"),
            *("-u", "6", "--readers", "SwarmUser=1,SseUser=4", "--streams", "50"),
            *("--shape", "storm", "--server-command"),
            "{python} -m fastsse serve --port {port} --drain 500ms --retry 200ms",
        ),
        None,
    ),
    "cut": Run(
        (
            *("--headless", "--only-summary", "-r", "100", "--shape", "storm"),
            *("-u", "6", "--readers", "SwarmUser=1,SseUser=4", "--streams", "50"),
        ),
        "cut",
    ),
    "spike": Run(
        (
            *("--headless", "--only-summary", "-t", "10s", "-r", "100", "--shape", "spike"),
            *("-u", "11", "--readers", "SseUser"),
        ),
        "spike",
    ),
    "web": Run(
        (
            *("--web-host", "127.0.0.1", "--web-port", "{port}", "--only-summary"),
            *("--readers", "SwarmUser=1,SseUser=2", "--streams", "20"),
        ),
        "web",
    ),
    "elsewhere": Run(("--headless", "-t", "20s", "--host", "http://192.0.2.1"), None),
    "too many": Run(
        ("--headless", "-t", "20s", "-u", "2", "--readers", "SwarmUser", "--streams", "999999999"),
        None,
    ),
    "no server": Run(("--headless", "-t", "20s", "--server-command", "{python} -c pass"), None),
}
