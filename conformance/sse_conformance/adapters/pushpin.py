"""`python pushpin.py <port> <folder> [<connections>]`: Pushpin, and the backend behind it.

As the README of Pushpin shows: the backend answers a GET with GRIP headers that hold the connection
as a stream of a channel, and publishes by a POST to Pushpin's control port.
"""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

CONFIGURATION = """
[global]
include={{libdir}}/internal.conf
rundir={folder}
ipc_prefix=pushpin-
[runner]
services={services}
http_port=127.0.0.1:{port}
logdir={folder}
log_level=0
client_buffer_size=8192
client_maxconn={connections}
[proxy]
routesfile={folder}/routes
zurl_out_specs=ipc://{folder}/pushpin-zurl-in
zurl_out_stream_specs=ipc://{folder}/pushpin-zurl-in-stream
zurl_in_specs=ipc://{folder}/pushpin-zurl-out
[handler]
push_in_spec=ipc://{folder}/push
push_in_sub_specs=ipc://{folder}/push-sub
push_in_http_addr=127.0.0.1
push_in_http_port={control}
push_in_http_max_headers_size=10000
push_in_http_max_body_size=1000000
stats_spec=ipc://{folder}/stats
command_spec=ipc://{folder}/command
message_rate=2500
message_hwm=25000
message_wait=5000
"""
# README, "HTTP streaming": a keep-alive of the stream.
KEEP_ALIVE = r":\n\n; format=cstring; timeout=15"
# The control port takes 1,000,000 bytes of JSON, in which a byte may have six.
BODY_BYTES_MAX = 160_000
LINE_END = re.compile(r"\r\n|\r|\n")
NO_VALUE = re.compile(r"[\r\n\0]")


class Backend(BaseHTTPRequestHandler):
    """GET holds a stream, POST publishes an event."""

    protocol_version = "HTTP/1.1"
    control = 0

    def do_GET(self) -> None:
        topics = parse_qs(urlsplit(self.path).query).get("topic", [])
        self.send_response(200 if topics else 400)
        if topics:
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Cache-Control", "no-cache")
            self.send_header("X-Accel-Buffering", "no")
            self.send_header("Grip-Hold", "stream")
            self.send_header("Grip-Channel", ", ".join(topics))
            self.send_header("Grip-Keep-Alive", KEEP_ALIVE)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        try:
            lines = [f"data: {line}\n" for line in LINE_END.split(body.decode())]
        except UnicodeDecodeError:
            self._answer(400)
            return
        if len(body) > BODY_BYTES_MAX:
            self._answer(413)
            return
        for name in ("id", "event"):
            if name in query:
                value = query[name][0]
                if NO_VALUE.search(value):
                    self._answer(400)
                    return
                lines.insert(0, f"{name}: {value}\n")
        formats = {"http-stream": {"content": "".join(lines) + "\n"}}
        items = [{"channel": topic, "formats": formats} for topic in query["topic"]]
        control = http.client.HTTPConnection("127.0.0.1", self.control)
        control.request("POST", "/publish/", json.dumps({"items": items}))
        self._answer(204 if control.getresponse().status == 200 else 502)
        control.close()

    def _answer(self, status: int) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for(port: int) -> None:
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.1)
        else:
            return
    sys.exit("Pushpin did not start.")


def main() -> int:
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    connections = int(sys.argv[3]) if len(sys.argv) > 3 else 50_000
    Backend.control = free_port()
    backend = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    threading.Thread(target=backend.serve_forever, daemon=True).start()
    (folder / "routes").write_text(f"* 127.0.0.1:{backend.server_address[1]}\n")
    started: list[subprocess.Popen[bytes]] = []

    def stop(number: int, _: object) -> None:
        for process in started:
            process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    # The port opens last, so that the first connection finds the rest.
    for services in ("zurl,pushpin-proxy,pushpin-handler", "condure"):
        text = CONFIGURATION.format(
            folder=folder,
            port=port,
            control=Backend.control,
            connections=connections,
            services=services,
        )
        file = folder / f"{services}.conf"
        file.write_text(text)
        started.append(subprocess.Popen(["pushpin", "--config", file]))
        if services != "condure":
            wait_for(Backend.control)
    while (status := started[-1].poll()) is None:
        time.sleep(0.1)
    return status


if __name__ == "__main__":
    sys.exit(main())
