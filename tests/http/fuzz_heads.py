"""Compares the native parser of publishes with llhttp alone, on hundreds of millions of requests.

    python -m tests.http.fuzz_heads --inputs 100000000 --seed 7

`tests.http.fuzz_intake` compares the whole ways of a request, up to its answer, about 10,000 to
40,000 inputs a second. This one compares what decides where a request ends, and what its target,
headers and body are: whatever `native/publish_head.pxd` accepts, llhttp accepts as the same one
request of a connection that goes on. Inputs are mutated natively (`head_comparison.pyx`, which is
built below `build/fuzz` with Cython and a C compiler), so a core compares about a million a second.
llhttp is the one in the package httptools. One seed always makes the same inputs. A difference is
printed with its input, and the exit status is 1.
"""

import argparse
import ctypes
import importlib.machinery
import importlib.util
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Final

import httptools.parser.parser

from fastsse._intake import MEANINGS
from fastsse.http.parser import KEPT_NAMES
from tests.http.fuzz_intake import CORPUS, LIMITS, PIECES, read_corpus

ROOT: Final = Path(__file__).parents[2]
SOURCE: Final = Path(__file__).with_name("head_comparison.pyx")
BUILT: Final = ROOT / "build" / "fuzz"
# In the order of `prepare`.
_FUNCTIONS: Final = (
    "llhttp_init",
    "llhttp_settings_init",
    "llhttp_execute",
    "llhttp_get_error_pos",
    "llhttp_get_method",
    "llhttp_get_http_major",
    "llhttp_get_http_minor",
    "llhttp_get_upgrade",
    "llhttp_should_keep_alive",
)
_BATCH: Final = 1_000_000


def build(folder: Path = BUILT) -> Path:
    """The compiled comparison. Raises CalledProcessError."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "head_comparison.c"
    library = folder / f"head_comparison{sysconfig.get_config_var('EXT_SUFFIX')}"
    cython = [sys.executable, "-m", "cython", "-3", "-I", str(ROOT), str(SOURCE)]
    subprocess.run([*cython, "-o", str(source)], check=True, cwd=ROOT)
    include = sysconfig.get_path("include")
    flags = ["-std=gnu11", "-O2", "-shared", "-fPIC", "-fno-strict-aliasing", f"-I{include}"]
    subprocess.run(["cc", *flags, str(source), "-o", str(library)], check=True)
    return library


def load(library: Path, leave: AbstractSet[bytes] = frozenset()) -> Any:
    """The module, with llhttp of httptools and the names and bounds of an intake, without some."""
    name = "head_comparison"
    loader = importlib.machinery.ExtensionFileLoader(name, str(library))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    llhttp = ctypes.CDLL(httptools.parser.parser.__file__)
    places = [ctypes.cast(getattr(llhttp, name), ctypes.c_void_p).value for name in _FUNCTIONS]
    module.prepare(places, {*MEANINGS, *KEPT_NAMES} - leave, *LIMITS)
    return module


def run(module: Any, requests: Sequence[bytes], seed: int, inputs: int) -> str | None:
    """Compares as many inputs; returns the first difference. Prints the numbers."""
    taken, done, started_s = 0, 0, time.monotonic()
    found = None
    while done < inputs and found is None:
        count = min(_BATCH, inputs - done)
        some, found = module.compare_many(list(requests), list(PIECES), seed + (done << 20), count)
        taken += some
        done += count
        if found is not None or done == inputs or done % (20 * _BATCH) == 0:
            rate = done / (time.monotonic() - started_s)
            print(
                f"seed {seed}: {done:,} inputs, {taken:,} taken, {rate:,.0f}/s, "
                f"{'no difference' if found is None else found}",
                flush=True,
            )
    return None if found is None else f"{found[1]}: {found[0]!r}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--inputs", type=int, default=100_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    options = parser.parse_args(arguments)
    found = run(load(build()), read_corpus(options.corpus), options.seed, options.inputs)
    if found is not None:
        print(found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
