"""Starts an installed fastsse, listens, publishes, and stops it: `python deploy/try_wheel.py`.

What a wheel must do where it is installed: no compiler, no clone, no other package than its own.
"""

import re
import signal
import subprocess
import sys
import tempfile

import fastsse

FASTSSE = [sys.executable, "-P", "-m", "fastsse"]


def main() -> int:
    """0 when an event went through."""
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [*FASTSSE, "serve", "--port", "0", "--log-format", "json"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder,
        )  # fmt: skip
        try:
            url = _address(server)
            publish = [*FASTSSE, "publish", "news", "hello", "--url", url]
            subprocess.run(publish, check=True, cwd=folder, timeout=30)
            listen = [
                *FASTSSE,
                "listen",
                "news",
                "--url",
                url,
                "--from",
                "earliest",
                "--count",
                "1",
            ]
            done = subprocess.run(
                listen, check=True, cwd=folder, timeout=30, capture_output=True, text=True
            )
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)
            if server.stdout is not None:
                server.stdout.close()
    assert "hello" in done.stdout, done.stdout
    assert server.returncode == 0, server.returncode
    print(f"fastsse {fastsse.__version__} in {fastsse.__file__} serves")
    return 0


def _address(server: "subprocess.Popen[str]") -> str:
    """From the line that says that it serves."""
    assert server.stdout is not None
    said = ""
    for line in server.stdout:
        said += line
        if found := re.search(r"http://[^\"]+", line):
            return found[0]
    raise SystemExit(f"it did not start: {said}")


if __name__ == "__main__":
    sys.exit(main())
