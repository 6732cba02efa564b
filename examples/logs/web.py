"""Serves the terminal's page.

python web.py 8000
"""

import pathlib
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HERE = pathlib.Path(__file__).parent
FILES = {
    "/": ("terminal.html", "text/html"),
    "/terminal.css": ("terminal.css", "text/css"),
    "/terminal.js": ("terminal.js", "text/javascript"),
    "/page.js": ("page.js", "text/javascript"),
}


class Page(BaseHTTPRequestHandler):
    """Answers with the files above and nothing else."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name, kind = FILES.get(self.path.partition("?")[0], ("", "text/plain"))
        body = (HERE / name).read_bytes() if name else b""
        self.send_response(200 if name else 404)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header(
            "Content-Security-Policy",
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src *",
        )
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:
        """Quiet."""


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Page)
    print(f"http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
