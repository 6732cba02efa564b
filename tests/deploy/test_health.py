"""The health check of the image, `deploy/health.c`: a static program that asks what listens here.

Each test runs in a network of its own, so that nothing else listens.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commandline import command, environment

SOURCE = Path(__file__).parents[2] / "deploy" / "health.c"
HEALTHY_THEN_NOT = r"""
ip link set lo up
"$@" >/dev/null 2>&1 & server=$!
for _ in $(seq 300); do
    if "$HEALTH" 2>/dev/null; then healthy=yes; break; fi
    sleep 0.1
done
kill -TERM $server; wait $server
"$HEALTH" 2>/dev/null; echo "$healthy $?"
"""
# Listens, answers with the pieces, and prints the exit status of the check.
ANSWERING = """
import os, socket, subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
listener = socket.create_server(("127.0.0.1", 0))
check = subprocess.Popen([os.environ["HEALTH"]], stderr=subprocess.DEVNULL)
client, _ = listener.accept()
client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
asked = b""
while not asked.endswith(b"\\r\\n\\r\\n"):
    asked += client.recv(4096)
assert asked.startswith(b"GET /healthz HTTP/1.1\\r\\n"), asked
for piece in sys.argv[1:]:
    client.sendall(piece.encode().decode("unicode_escape").encode())
client.close()
print(check.wait())
"""


@pytest.fixture(scope="module")
def health(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built as the image builds it, except that it is linked with this C library."""
    if subprocess.run(["unshare", "-n", "ip", "link"], capture_output=True, check=False).returncode:
        pytest.skip("no network of its own for a process here (unshare -n)")
    built = tmp_path_factory.mktemp("health") / "health"
    words = ["cc", "-Os", "-Wall", "-Wextra", "-Werror", "-o", built, SOURCE]
    subprocess.run(words, check=True)
    return built


@pytest.mark.parametrize(
    ("flags", "variables"),
    [
        ([], {"FASTSSE_PORT": "9124"}),
        (["--host", "::1", "--port", "9125"], {}),
        (["--host", "::", "--port", "9126"], {"FASTSSE_PUBLISH_TOKEN": "t" * 32}),
        (["--config", "FILE", "--host", "127.0.0.5"], {"FASTSSE_WORKERS": "2"}),
    ],
)
def test_the_health_check_follows_the_port_and_starts_no_python(
    health: Path, flags: list[str], variables: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "fastsse.toml"
    file.write_text("port = 9127\n")
    served = command(["serve", *(str(file) if flag == "FILE" else flag for flag in flags)])
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", HEALTHY_THEN_NOT, "sh", *served],
        env=environment(HEALTH=str(health), **variables),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "yes 1\n", done.stderr


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        (["HTTP/1.1 200 OK\\r\\n\\r\\n"], 0),
        (["HTTP/1", ".1 2", "00 OK\\r\\n\\r\\n"], 0),
        (["HTTP/1.1 503 Service Unavailable\\r\\n\\r\\n"], 1),
        (["HTTP/1.1 2"], 1),
        (["SSH-2.0-x 200 200\\r\\n"], 1),
        ([], 1),
    ],
)
def test_only_an_answer_of_200_is_healthy(health: Path, pieces: list[str], status: int) -> None:
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-c", ANSWERING, *pieces],
        env=environment(HEALTH=str(health)),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == f"{status}\n", done.stderr


@pytest.mark.parametrize("port", ["", "0", "x", "80x", "65536", "99999999999999999999", "-1"])
def test_a_port_that_is_none_is_no_listener(health: Path, port: str) -> None:
    done = subprocess.run(
        ["unshare", "-n", health],
        env=environment(FASTSSE_PORT=port), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "no listener of this user answers /healthz with 200\n"


@pytest.mark.skipif(shutil.which("musl-gcc") is None, reason="no musl-gcc here")
def test_the_image_s_build_of_it_is_static_and_small(tmp_path: Path) -> None:
    built = tmp_path / "health"
    words = ["musl-gcc", "-static", "-Os", "-s", "-o", built, SOURCE]
    subprocess.run(words, check=True)
    assert b"ld-musl" not in built.read_bytes()
    assert built.stat().st_size < 64 * 1024
