"""The hub behind reverse proxies, each with the least configuration that people begin with."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from sse_conformance import endings
from sse_conformance.hub import Hub
from sse_conformance.registry import Case, NotTested, check, expect
from sse_conformance.server import filled, found_program, free_port, open_sockets, user
from sse_conformance.wire import Connection

END = "the-end"
_LEAVING_S = 40
# nginx's documentation of proxy_pass and no more: HTTP/1.0 to the hub, and responses are buffered
# unless the hub says `X-Accel-Buffering: no`.
_NGINX = """
daemon off; pid @folder@/pid; error_log stderr; worker_processes 1; user @user@;
events {}
http {
  access_log off;
  client_body_temp_path @folder@/b; proxy_temp_path @folder@/p; fastcgi_temp_path @folder@/f;
  uwsgi_temp_path @folder@/u; scgi_temp_path @folder@/s;
  server { listen 127.0.0.1:@port@; location / { proxy_pass http://@hub@; @more@ } }
}
"""
# With the lines that its documentation recommends for keep-alive to the hub.
_KEEPALIVE = """
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
"""
_HAPROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend f
  bind 127.0.0.1:@port@
  default_backend b
backend b
  server hub @hub@
"""


@contextmanager
def _behind(hub: Hub, kind: str) -> Iterator[Hub]:
    """The hub as seen through a proxy."""
    name = kind.partition("-")[0]
    program = found_program(name)
    if program is None:
        raise NotTested(f"{name} is not installed")
    with tempfile.TemporaryDirectory(prefix="sse-conformance-") as folder:
        port = free_port()
        values = {
            "folder": folder, "port": str(port), "hub": hub.authority, "user": user(),
            "more": _KEEPALIVE if kind == "nginx-keepalive" else "",
        }  # fmt: skip
        config = Path(folder, "conf")
        config.write_text(filled(_HAPROXY if name == "haproxy" else _NGINX, values))
        words = [program, "-f", str(config)]
        if name == "nginx":
            words = [program, "-p", folder, "-c", str(config), "-e", "stderr"]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with endings.watched(process.pid):
            try:
                _wait_for(port, process)
                yield hub.at(port)
            finally:
                process.terminate()
                process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            Connection("127.0.0.1", port).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotTested("the proxy did not start") from None
            time.sleep(0.02)


def _at_once(case: Case, kind: str) -> None:
    with _behind(case.hub, kind) as proxied:
        topic = proxied.topic()
        with proxied.listen(topic) as stream:
            for text in ("a", "b"):
                case.hub.send(topic, text)
                expect(stream.next().data == text, "another event")


def _leaving(case: Case, kind: str) -> str:
    """A client of the proxy leaves: the hub's socket is closed, without another event."""
    if case.hub.pids is None:
        raise NotTested("needs a server that the suite starts (--start)")
    with _behind(case.hub, kind) as proxied:
        topic = proxied.topic()
        case.hub.hang_up()
        before = open_sockets(case.hub.pids())
        stream = proxied.listen(topic)
        stream.close()
        begun = time.monotonic()
        # Some proxies notice only when something is sent: a heartbeat is enough.
        while open_sockets(case.hub.pids()) > before:
            expect(time.monotonic() < begun + _LEAVING_S, "the hub's socket is still open")
            time.sleep(0.05)
        return f"after {time.monotonic() - begun:.0f} s"


def _resume(case: Case, kind: str) -> None:
    with _behind(case.hub, kind) as proxied:
        topic = proxied.topic()
        with proxied.listen(topic) as stream:
            case.hub.send(topic, "first")
            stream.next()
            place = stream.place
        case.hub.send(topic, "missed", END)
        with proxied.listen(topic, after=place) as stream:
            found = [message.data for message in stream.until(END)]
        expect(found == ["missed"], f"received {found}")


_PROXIES = {
    "nginx": "nginx with proxy_pass alone",
    "nginx-keepalive": "nginx with HTTP/1.1 to the hub",
    "haproxy": "HAProxy",
}
for _kind, _title in _PROXIES.items():
    _id = _kind.replace("-", "_")
    check(f"proxies.{_id}_at_once", f"{_title} passes events at once", is_long=True)(
        partial(_at_once, kind=_kind)
    )
    check(f"proxies.{_id}_resume", f"{_title} passes the place of a client", is_long=True,
          needs=["resume"])(partial(_resume, kind=_kind))  # fmt: skip
    check(f"proxies.{_id}_leaving", f"A client of {_title} leaves: the hub notices within 40 s",
          is_long=True)(partial(_leaving, kind=_kind))  # fmt: skip
