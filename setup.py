"""Builds the native extensions; everything else about the package stands in pyproject.toml.

Environment:
    FASTSSE_SANITIZE: a comma-separated list for `-fsanitize=` (`address,undefined` or `thread`).
        Such a build is for tests only; `make test-sanitized` shows how it is loaded.
"""

import os
import sys

if not sys.platform.startswith("linux"):
    sys.exit("fastsse needs Linux (epoll); use Docker or WSL2")

from Cython.Build import cythonize
from setuptools import Extension, setup

sanitize = os.environ.get("FASTSSE_SANITIZE", "")
flags = ["-std=gnu11", "-Wall", "-Wno-unused-function", "-fno-strict-aliasing", "-pthread"]
if sanitize:
    flags += [
        f"-fsanitize={sanitize}",
        "-fno-omit-frame-pointer",
        "-fno-sanitize-recover",
        "-O1",
        "-g",
    ]
else:
    flags += ["-O3", "-g0"]
link_flags = ["-pthread", *([f"-fsanitize={sanitize}"] if sanitize else [])]


def native(folder: str, ending: str) -> list[str]:
    """Files of a folder that end so."""
    return sorted(
        os.path.join(folder, file) for file in os.listdir(folder) if file.endswith(ending)
    )


def extension(source: str) -> Extension:
    """`fastsse/swarm/_swarm.pyx` becomes `fastsse.swarm._swarm`, with the headers in `native`."""
    return Extension(
        source.removesuffix(".pyx").replace(os.sep, "."),
        [source],
        depends=native(os.path.join(os.path.dirname(source), "native"), ".pxd"),
        extra_compile_args=flags,
        extra_link_args=link_flags,
    )


folders = ["fastsse", os.path.join("fastsse", "swarm")]
sources = [source for folder in folders for source in native(folder, ".pyx")]
if not sources:
    sys.exit("the native sources (.pyx) are missing: this is no whole source distribution")
# Manual pages and shell completions: `deploy/share` is laid out as below a prefix.
shared = [
    (folder.removeprefix("deploy" + os.sep), [os.path.join(folder, file) for file in sorted(files)])
    for folder, _, files in sorted(os.walk(os.path.join("deploy", "share")))
    if files
]
setup(
    data_files=shared,
    ext_modules=cythonize(
        [extension(source) for source in sources],
        compiler_directives={"language_level": 3},
        build_dir="build/cython",
    ),
)
