"""Many seeds of the fault simulation, in several processes: `make soak`.

    python -m tests.backbone.simulation [--seeds 1000] [--first 0] [--jobs 2] [--of streams]

A failure prints its seed, its story, and how to repeat it. The exit status is 1 then.
"""

import argparse
import multiprocessing
import os
import sys
import time

from tests.backbone.simulation.streams_world import run_streams_seed
from tests.backbone.simulation.world import run_seed

_RUNS = {"events": run_seed, "streams": run_streams_seed}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.backbone.simulation")
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--of", choices=sorted(_RUNS), default="events", help="what is stored")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    began_s, failed = time.monotonic(), 0
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for seed, report in pool.imap_unordered(_RUNS[options.of], seeds):
            if report is not None:
                failed += 1
                print(f"seed {seed} failed:\n{report}", file=sys.stderr)
                again = f"python -m tests.backbone.simulation --of {options.of}"
                again += f" --first {seed} --seeds 1"
                print(f"  repeat it: {again}\n", file=sys.stderr, flush=True)
    took_s = time.monotonic() - began_s
    print(f"{len(seeds)} seeds in {took_s:.0f} s, {failed} failed.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
