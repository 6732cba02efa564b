"""Builds the native extensions; everything else about the package stands in pyproject.toml.

Environment:
    FASTSSE_SANITIZE: a comma-separated list for `-fsanitize=` (`address,undefined` or `thread`).
        Such a build is for tests only; `make test-sanitized` shows how it is loaded.
"""

import gzip
import os
import sys
import tarfile

if not sys.platform.startswith("linux"):
    sys.exit("fastsse needs Linux (epoll); use Docker or WSL2")

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.sdist import sdist

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


class Archive(sdist):
    """The source distribution. With SOURCE_DATE_EPOCH the same files give the same bytes: members
    have that time and no owner, and the order of their names."""

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, owner=None, group=None):
        epoch = os.environ.get("SOURCE_DATE_EPOCH")
        if epoch is None or format != "gztar":
            return super().make_archive(base_name, format, root_dir, base_dir, owner, group)
        os.makedirs(os.path.dirname(base_name), exist_ok=True)
        paths = [base_dir]
        for folder, inner, files in os.walk(base_dir):
            paths += [os.path.join(folder, name) for name in (*inner, *files)]
        with (
            open(f"{base_name}.tar.gz", "wb") as raw,
            gzip.GzipFile("", "wb", fileobj=raw, mtime=int(epoch)) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            for path in sorted(paths):
                archive.add(path, recursive=False, filter=lambda one: plain(one, int(epoch)))
        return f"{base_name}.tar.gz"


def plain(member, epoch):
    """A member of an archive without what depends on the machine."""
    member.mtime = epoch
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    return member


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
    cmdclass={"sdist": Archive},
    data_files=shared,
    ext_modules=cythonize(
        [extension(source) for source in sources],
        compiler_directives={"language_level": 3},
        build_dir="build/cython",
    ),
)
