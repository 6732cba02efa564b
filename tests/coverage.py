"""`make coverage`: which lines of the package the tests run, by area.

The lines of the processes that a test starts count too. An area is a folder of `fastsse`, or
`fastsse` itself for the modules next to them. Native code is not counted: its lines have no names
that the interpreter sees.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
_SETTINGS: Final = """
[run]
source = fastsse
branch = true
parallel = true
patch = subprocess, _exit
sigterm = true
data_file = {folder}/data
[report]
exclude_also =
    if TYPE_CHECKING:
    \\.\\.\\.$
    @overload
    raise NotImplementedError
"""


def areas(files: dict[str, Any]) -> dict[str, tuple[int, int, int, int]]:
    """By area: lines, those that ran, branches, those that were taken."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for name, file in files.items():
        parts = Path(name).parts
        summary = file["summary"]
        found = (
            summary["num_statements"],
            summary["covered_lines"],
            summary["num_branches"],
            summary["covered_branches"],
        )
        for area in (parts[1] if len(parts) > 2 else parts[0], "in total"):
            sums[area] = [a + b for a, b in zip(sums[area], found, strict=True)]
    rest = sorted(sums.keys() - {"in total"})
    return {area: (a, b, c, d) for area in (*rest, "in total") for a, b, c, d in [sums[area]]}


def table(files: dict[str, Any]) -> str:
    """In Markdown."""
    rows = ["| area | lines | run | branches | taken |", "| --- | ---: | ---: | ---: | ---: |"]
    for area, (lines, ran, branches, taken) in areas(files).items():
        rows.append(
            f"| `{area}/` | {lines:,} | {share(ran, lines)} | {branches:,} | "
            f"{share(taken, branches)} |"
        )
    return "\n".join(rows).replace("`in total/`", "in total").replace("`fastsse/`", "modules")


def share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else ""


def main(arguments: list[str]) -> int:
    """Runs pytest with these arguments; the status is pytest's."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "settings"
        settings.write_text(_SETTINGS.format(folder=folder))
        tool = [sys.executable, "-m", "coverage"]
        words = [*tool, "run", f"--rcfile={settings}", "-m", "pytest", *arguments]
        status = subprocess.run(words, cwd=ROOT, check=False).returncode
        # A process that was killed leaves no whole file.
        combine = [*tool, "combine", "-q", "--keep", f"--rcfile={settings}", folder]
        subprocess.run(combine, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
        found = Path(folder) / "found.json"
        report = [*tool, "json", "-q", "-i", f"--rcfile={settings}", "-o", found]
        subprocess.run(report, cwd=ROOT, check=True)
        print(table(json.loads(found.read_text("utf-8"))["files"]))
    return status


if __name__ == "__main__":
    os.environ.setdefault("COVERAGE_CORE", "ctrace")
    sys.exit(main(sys.argv[1:]))
