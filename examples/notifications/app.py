"""The web application: the page, a session for each user, and how far each has read.

    python app.py 8000 http://127.0.0.1:8080

It needs FASTSSE_STORE and FASTSSE_JWT_KEY. Who a user is it simply believes: a real one
asks for a password.
"""

import base64
import hashlib
import hmac
import json
import os
import pathlib
import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import redis

HERE = pathlib.Path(__file__).parent
FILES = {"/": ("page.html", "text/html"), "/mailbox.js": ("mailbox.js", "text/javascript")}
USER = re.compile(r"[a-z0-9]{1,32}")
POSITION = re.compile(r"\d{1,19}-\d{1,20}")
SESSION_S = int(os.environ.get("SESSION_S", 24 * 60 * 60))
BODY_MAX_BYTES = 10_000
# A mark only goes forward, whichever device is slower to say how far it has read.
ADVANCE = """
local ms, n = string.match(ARGV[1], '^(%d+)-(%d+)$')
local old_ms, old_n = string.match(redis.call('GET', KEYS[1]) or '0-0', '^(%d+)-(%d+)$')
local function above(a, b) if #a ~= #b then return #a > #b end return a > b end
if above(ms, old_ms) or (ms == old_ms and above(n, old_n)) then
  redis.call('SET', KEYS[1], ARGV[1])
  return 1
end
return 0
"""

store = redis.Redis.from_url(os.environ["FASTSSE_STORE"], decode_responses=True)
key = os.environ["FASTSSE_JWT_KEY"].encode()


def token_for(user: str) -> str:
    """A JSON Web Token that lets its bearer read this user's topic, for a session."""
    claims = {
        "sub": user,
        "exp": int(time.time()) + SESSION_S,
        "mercure": {"subscribe": [f"users/{user}"]},
    }
    parts = [_text(json.dumps(part).encode()) for part in ({"alg": "HS256"}, claims)]
    return ".".join([*parts, _signature(parts)])


def user_of(token: str) -> str | None:
    """Who a token was made for, None when it was not made here or is over."""
    *parts, signature = token.split(".")
    if len(parts) != 2 or not hmac.compare_digest(signature, _signature(parts)):
        return None
    claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=="))  # ours: it was signed here
    return str(claims["sub"]) if claims["exp"] > time.time() else None


def _signature(parts: list[str]) -> str:
    return _text(hmac.digest(key, ".".join(parts).encode(), hashlib.sha256))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Application(BaseHTTPRequestHandler):
    """Answers the page."""

    protocol_version = "HTTP/1.1"
    events = ""

    def do_GET(self) -> None:
        path = urlsplit(self.path)
        if path.path in FILES:
            name, kind = FILES[path.path]
            self._answer(200, (HERE / name).read_bytes(), kind)
        elif path.path == "/session":
            self._begin_session(parse_qs(path.query).get("user", [""])[0])
        else:
            self._answer(404, b"")

    def do_POST(self) -> None:
        asked = self._asked()
        user = user_of(str(asked.get("token", "")))
        through = str(asked.get("through", ""))
        if self.path != "/read" or user is None or not POSITION.fullmatch(through):
            self._answer(403, b"")
            return
        if store.eval(ADVANCE, 1, f"read:{user}", through):
            store.publish(f"reads.{user}", json.dumps({"through": through}))
        self._answer(204, b"")

    def _asked(self) -> dict[str, object]:
        """The body's members; none of what is no JSON object, or too long."""
        size_bytes = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"[0-9]{1,9}", size_bytes) or int(size_bytes) > BODY_MAX_BYTES:
            self.close_connection = True
            return {}
        try:
            asked = json.loads(self.rfile.read(int(size_bytes)))
        except (ValueError, RecursionError):
            return {}
        return asked if isinstance(asked, dict) else {}

    def _begin_session(self, user: str) -> None:
        if not USER.fullmatch(user):
            self._answer(400, b"")
            return
        session = {
            "events": f"{self.events}/events?topic=users/{user}",
            "token": token_for(user),
            "read": store.get(f"read:{user}") or "0-0",
        }
        self._answer(200, json.dumps(session).encode(), "application/json")

    def _answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:
        """Quiet: requests hold tokens."""


def main() -> None:
    port, Application.events = int(sys.argv[1]), sys.argv[2]
    server = ThreadingHTTPServer(("127.0.0.1", port), Application)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
