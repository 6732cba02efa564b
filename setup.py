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


def extension(name: str) -> Extension:
    return Extension(
        f"fastsse.{name}",
        [f"fastsse/{name}.pyx"],
        depends=sorted(
            os.path.join("fastsse", file) for file in os.listdir("fastsse") if file.endswith(".pxd")
        ),
        extra_compile_args=flags,
        extra_link_args=link_flags,
    )


modules = sorted(file[:-4] for file in os.listdir("fastsse") if file.endswith(".pyx"))
setup(
    ext_modules=cythonize(
        [extension(name) for name in modules],
        compiler_directives={"language_level": 3},
        build_dir="build/cython",
    )
)
