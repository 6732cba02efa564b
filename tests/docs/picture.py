"""Draws `docs/images/quickstart.svg` from a real run of a server, a subscriber and a publisher.

`make picture` runs it. The drawing is rich's; its font is the reader's own, so that nothing is
loaded from another host.
"""

import io
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from tests.docs.blocks import ROOT
from tests.docs.servers import Served, streams_at

PICTURE = ROOT / "docs" / "images" / "quickstart.svg"
SHOWN = "http://127.0.0.1:8080"
WAIT_S = 20
_FONT_FACE = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def run(folder: Path) -> list[tuple[str, str]]:
    """What a terminal shows: commands after `$ `, and the lines that they print."""
    served = Served("", folder / "served", {})
    output = folder / "stream"
    url = f"http://{served.address}/events?topic=news"
    try:
        with output.open("wb") as file:
            listening = subprocess.Popen(["curl", "-sN", url], stdout=file)
        try:
            _wait(lambda: streams_at(served.address) == 1)
            answers = [_publish(url, data) for data in ("hello", "and again")]
            _wait(lambda: output.read_text("utf-8").count("data:") == 2)
        finally:
            listening.kill()
            listening.wait()
        shown_url = f"'{SHOWN}/events?topic=news'"
        lines = [("", "# terminal 1: subscribe"), ("$ ", f"curl -N {shown_url}")]
        lines += [("", line) for line in output.read_text("utf-8").splitlines()]
        lines += [("", ""), ("", "# terminal 2: publish")]
        for data, answer in zip(("hello", "and again"), answers, strict=True):
            lines += [("$ ", f"curl -d '{data}' {shown_url}"), ("", answer)]
        return lines
    finally:
        served.stop()


def _publish(url: str, data: str) -> str:
    done = subprocess.run(["curl", "-s", "-d", data, url], capture_output=True, check=True)
    return done.stdout.decode().rstrip("\n")


def _wait(is_so: Callable[[], bool]) -> None:
    ends_s = time.monotonic() + WAIT_S
    while not is_so():
        if time.monotonic() > ends_s:
            raise TimeoutError("the picture's run did not come to its end")
        time.sleep(0.01)


def draw(lines: list[tuple[str, str]]) -> str:
    """The lines as SVG."""
    console = Console(record=True, width=72, file=io.StringIO(), force_terminal=True)
    for prompt, text in lines:
        style = "bold green" if prompt else ("dim" if text.startswith("#") else "")
        console.print(Text.assemble((prompt, "bold magenta"), (text, style)), highlight=False)
    svg = console.export_svg(title="fastsse", theme=MONOKAI, unique_id="quickstart")
    return _FONT_FACE.sub("", svg).replace("Fira Code, monospace", "ui-monospace, monospace")


def main() -> int:
    """Draws it."""
    with tempfile.TemporaryDirectory() as folder:
        svg = draw(run(Path(folder)))
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(svg, "utf-8")
    print(PICTURE.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
