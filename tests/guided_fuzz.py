"""Fuzzers that a compiler steers: `python -m tests.guided_fuzz encoder --seconds 60`.

Compiles the native parts with clang, address sanitizer and counters of branches, below
`build/guided`, and has libFuzzer choose the inputs: what reaches a new branch is changed further.
The checks are those of `tests.fuzz`, of `tests.http.fuzz_intake`, and one of the encoder.

Inputs that reach something new stay in `build/guided/corpus`. `tests/guided_corpus` has the
smallest set of an earlier run, a file for each target, one input a line as Python writes bytes;
`--keep` writes it again. A failure is written to `build/guided/found`, and the exit status is 1.
"""

import argparse
import ast
import ctypes
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from fastsse.entries import encode_entries, id_of
from fastsse.errors import InvalidEvent
from fastsse.events import Event
from fastsse.eventstream import EventStreamParser
from tests.fuzz import TARGETS, Target
from tests.http.fuzz_intake import PIECES, Comparator, comparators, read_corpus

ROOT: Final = Path(__file__).parent.parent
BUILT: Final = ROOT / "build" / "guided"
CORPUS: Final = Path(__file__).with_name("guided_corpus")
_OF_FUZZ: Final = ("records", "ndjson", "filter", "envelope")
_INPUT_BYTES_MAX: Final = 4096
_RUNTIME: Final = "libclang_rt.fuzzer_no_main-x86_64.a"
_SANITIZER: Final = "libclang_rt.asan-x86_64.so"
_PROGRAM: Final = """\
#!/bin/sh
exec {} -c '
import ctypes, sys
sys.path.insert(0, "{}")
library = ctypes.CDLL("{}")
from tests import guided_fuzz
guided_fuzz.loop("{}", library, sys.argv[1:])' "$0" "$@"
"""


def check_encoder(data: bytes) -> None:
    """Parts between bytes of 255 as an event: refused, or read as exactly this one event."""
    text, event, own_id, retry = [*data.split(b"\xff", 3), b"", b"", b""][:4]
    try:
        one = Event(
            ("t",), text, event=event or None, id=own_id or None, retry=int(retry or b"0") or None
        )
        (entry,) = encode_entries([(7 << 20) + 1], [one])
    except (InvalidEvent, ValueError):
        return
    parser = EventStreamParser(max_event_bytes=1 << 24)
    (block,) = parser.feed(entry.frame.body)
    assert block.data == text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    assert block.event == event
    assert block.id == id_of(entry.position, one)
    assert parser.retry_ms == (one.retry_ms or None)


def _check_intake() -> Callable[[bytes], None]:
    sides: list[Comparator] = []

    def check(data: bytes) -> None:
        """Both ways of a request agree; the length chooses the options of the server."""
        if not sides:
            sides.extend(comparators())
        sides[len(data) & 3].compare(data)

    return check


def targets() -> dict[str, Target]:
    """What has native parts."""
    events = [b"one\ntwo\r\nthree\r\xfftick\xffown-1\xff5", b"x", "\u00e9\u2028".encode()]
    return {
        **{name: TARGETS[name] for name in _OF_FUZZ},
        "encoder": Target(
            check_encoder, events, [b"\r", b"\n", b"\r\n", b"\x00", b"\xff", b"data: "]
        ),
        "intake": Target(_check_intake(), read_corpus(), PIECES),
    }


def kept(name: str) -> Iterator[bytes]:
    """The inputs of a target in `tests/guided_corpus`."""
    file = CORPUS / f"{name}.txt"
    for line in file.read_text("utf-8").splitlines() if file.exists() else ():
        yield ast.literal_eval(line)


def clang() -> str | None:
    """A clang with libFuzzer's library, or None."""
    for name in ("clang", *(f"clang-{version}" for version in range(22, 13, -1))):
        if (path := shutil.which(name)) and Path(_file_of(path, _RUNTIME)).is_absolute():
            return path
    return None


def _file_of(compiler: str, name: str) -> str:
    words = [compiler, f"-print-file-name={name}"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def build(compiler: str) -> None:
    """libFuzzer as a library, and the package with its counters. Raises CalledProcessError."""
    BUILT.mkdir(parents=True, exist_ok=True)
    whole = ("-Wl,--whole-archive", _file_of(compiler, _RUNTIME), "-Wl,--no-whole-archive")
    words = [
        compiler,
        "-shared",
        "-o",
        str(BUILT / "libfuzzer.so"),
        *whole,
        "-lstdc++",
        "-lm",
        "-lpthread",
    ]
    subprocess.run(words, check=True)
    environment = {
        **os.environ,
        "CC": compiler,
        "LDSHARED": f"{compiler} -shared -shared-libasan",
        "FASTSSE_SANITIZE": "address,fuzzer-no-link",
    }
    places = ["--build-base", str(BUILT), "--build-lib", str(BUILT / "lib")]
    words = [sys.executable, "setup.py", "-q", "build", *places]
    subprocess.run(words, cwd=ROOT, env=environment, check=True)


def fuzz(name: str, compiler: str, options: list[str]) -> int:
    """Runs libFuzzer in a process of its own; its status."""
    corpus, found = BUILT / "corpus" / name, BUILT / "found"
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate((*targets()[name].corpus, *kept(name))):
        (corpus / f"seed-{number}").write_bytes(data)
    words = BUILT / f"{name}.dict"
    words.write_text("".join(f'"{_quoted(piece)}"\n' for piece in targets()[name].pieces))
    program = BUILT / f"fuzz-{name}"
    program.write_text(_PROGRAM.format(sys.executable, BUILT / "lib", BUILT / "libfuzzer.so", name))
    program.chmod(0o755)
    environment = {
        **os.environ,
        # libFuzzer first: the sanitizer has empty functions of the same names.
        "LD_PRELOAD": f"{BUILT / 'libfuzzer.so'}:{_file_of(compiler, _SANITIZER)}",
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:handle_abort=0:verify_asan_link_order=0",
        "PYTHONMALLOC": "malloc",
    }
    limits = [f"-max_len={_INPUT_BYTES_MAX}", "-timeout=20", "-rss_limit_mb=3000"]
    return subprocess.run(
        [program, *limits, f"-dict={words}", f"-artifact_prefix={found}/{name}-", *options, corpus],
        cwd=ROOT, env=environment, check=False,
    ).returncode  # fmt: skip


def _quoted(piece: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in piece)


def loop(name: str, library: ctypes.CDLL, words: list[str]) -> None:
    """libFuzzer's own loop, which ends the process. The first word is the program, which it starts
    again to find the smallest corpus."""
    check = targets()[name].check

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_char), ctypes.c_size_t)
    def one(at: "ctypes._Pointer[ctypes.c_char]", size: int) -> int:
        try:
            check(ctypes.string_at(at, size))
        except Exception:
            traceback.print_exc()
            os.abort()
        return 0

    array = (ctypes.c_char_p * (len(words) + 1))(*map(os.fsencode, words), None)
    pointer, count = ctypes.cast(array, ctypes.POINTER(ctypes.c_char_p)), ctypes.c_int(len(words))
    library.LLVMFuzzerRunDriver(ctypes.byref(count), ctypes.byref(pointer), one)


def keep(name: str, compiler: str) -> int:
    """Writes the smallest set that reaches the same to `tests/guided_corpus`; how many."""
    small = BUILT / "small" / name
    shutil.rmtree(small, ignore_errors=True)
    small.mkdir(parents=True)
    fuzz(name, compiler, ["-merge=1", str(small)])
    CORPUS.mkdir(exist_ok=True)
    inputs = sorted(
        (file.read_bytes() for file in small.iterdir()), key=lambda one: (len(one), one)
    )
    (CORPUS / f"{name}.txt").write_text("".join(f"{one!r}\n" for one in inputs))
    return len(inputs)


def main() -> int:
    """1 if an input failed, or there is no clang."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(targets()))
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--built", action="store_true", help="use what the last run compiled")
    parser.add_argument("--keep", action="store_true", help="write tests/guided_corpus")
    given = parser.parse_args()
    compiler = clang()
    if compiler is None:
        parser.error("no clang with libFuzzer here")
    if not given.built:
        build(compiler)
    failed = 0
    for name in given.targets or targets():
        options = [f"-max_total_time={given.seconds}", "-print_final_stats=1"]
        status = fuzz(name, compiler, options)
        failed += status != 0
        print(f"{name}: {'failed' if status else 'nothing found'}", flush=True)
        if given.keep and not status:
            print(f"{name}: {keep(name, compiler)} inputs kept", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
