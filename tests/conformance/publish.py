"""`make conformance`: runs the whole suite against every hub that is installed here and writes
`conformance/results`; `make reference` makes the tables of docs/conformance.md from them."""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.conformance import FOLDER  # Makes the suite importable.

from sse_conformance.adapter import load  # isort: skip
from sse_conformance.server import Server, missing_programs  # isort: skip

RESULTS: Final = FOLDER / "results"
_NODE: Final = Path(sys.prefix)
#: By the name of the file: what the command `sse-conformance` is given.
RUNS: Final[dict[str, Sequence[str]]] = {
    "fastsse-memory": ("--adapter", "fastsse", "--label", "memory"),
    "fastsse-sqlite": ("--adapter", "fastsse", "--variant", "durable", "--label", "sqlite"),
    "fastsse-workers": ("--adapter", "fastsse", "--variant", "workers", "--label", "2 workers"),
    "mercure-on-fastsse": ("--adapter", "mercure", "--label", "the protocol, spoken by fastsse"),
    "nchan": ("--adapter", "nchan"),
    "pushpin": ("--adapter", "pushpin"),
    "centrifugo": ("--adapter", "centrifugo"),
    "better-sse": ("--adapter", "better-sse"),
    "sse-starlette": ("--adapter", "sse-starlette"),
}
#: Of these the suite has the address alone; fastsse is started for it.
_ADDRESS_ALONE: Final = frozenset({"mercure-on-fastsse"})


def main() -> int:
    """1 if a hub could not be tried."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.publish")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RUNS)}; else all")
    names = parser.parse_args().names or list(RUNS)
    if unknown := sorted({*names} - {*RUNS}):
        parser.error(f"unknown: {', '.join(unknown)}")
    os.environ.setdefault("SSE_CONFORMANCE_NODE_MODULES", str(_NODE / "peers-node/node_modules"))
    return max([_run(name, RUNS[name]) for name in names])


def _run(name: str, words: Sequence[str]) -> int:
    missing = [] if name in _ADDRESS_ALONE else missing_programs(load(words[1]))
    if missing:
        print(f"{name}: not installed: {', '.join(missing)}", flush=True)
        return 1
    with tempfile.TemporaryDirectory() as folder, _started(name) as where:
        file = Path(folder) / "result.json"
        command = [sys.executable, "-m", "sse_conformance", *where, *words, "--json", str(file)]
        clients = ("--node-modules", str(_NODE / "node/node_modules"))
        subprocess.run([*command, *clients], cwd=FOLDER, stdout=subprocess.DEVNULL, check=False)
        if not file.exists():  # Its reason is on the error output.
            return 1
        (RESULTS / f"{name}.json").write_bytes(file.read_bytes())
    print(f"{name}: done", flush=True)
    return 0


@contextmanager
def _started(name: str) -> Iterator[Sequence[str]]:
    """How the command is given the hub."""
    if name not in _ADDRESS_ALONE:
        yield ("--start",)
        return
    with Server(load("fastsse")) as server:
        yield (f"http://127.0.0.1:{server.port}",)


if __name__ == "__main__":
    sys.exit(main())
