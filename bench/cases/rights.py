"""What tokens cost: subscriptions and publishes with one, compared with the same without."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from urllib.parse import urlsplit

import jwt

from bench.cases.case import Result, Setup
from bench.cases.publishing import closed_loop
from bench.load import Sample, others_busy
from bench.machine import busy_us
from bench.server import Server, UnderTest

_GRANTS = {"publish": ["*"], "subscribe": ["user/{id}", "news"]}
_SUBSCRIBE_MIN = 0.6
_PUBLISH_MIN = 0.8
# Sockets that a listener's queue takes while none is accepted.
_BURST = 512


def subscribe_with_tokens(setup: Setup) -> Result:
    """The same client opens as many streams without tokens, all with one, each with its own."""
    count = setup.count(10_000)
    secret = secrets.token_hex(32)
    samples = [_subscribe_run(setup, count, secret) for _ in range(setup.repeats)]
    title = f"{count:,} subscriptions with tokens of their own (HS256) to as many without"
    result = Result("subscribe-token", title, f"≥ {_SUBSCRIBE_MIN}", samples, ("ratio", "x"))
    result.is_fan_out = False
    result.met = min(result.median(name) for name in _RATIOS) >= _SUBSCRIBE_MIN
    result.notes = [
        f"one token for all {result.median('ratio_same'):.2f}; by the server's CPU time "
        f"{result.median('cpu_ratio'):.2f} and {result.median('cpu_ratio_same'):.2f}; "
        f"{result.median('a_second'):,.0f} streams/s"
    ]
    return result


_RATIOS = ("ratio", "ratio_same")


def _subscribe_run(setup: Setup, count: int, secret: str) -> Sample:
    same = [token(secret)] * count
    own = [token(secret, sub=f"user-{number}") for number in range(count)]
    guarded = ("--jwt-key", secret)
    with Server(setup.server_cpu) as server:
        plain_s, plain_us = _open_streams(server, [""] * count)
    with Server(setup.server_cpu, guarded) as server:
        same_s, same_us = _open_streams(server, same)
    with Server(setup.server_cpu, guarded) as server:
        busy_before, client_before_s = busy_us(), time.process_time()
        own_s, own_us = _open_streams(server, own)
        busy, client_s = busy_us() - busy_before, time.process_time() - client_before_s
    sample = {
        "a_second": count / own_s,
        "without_a_second": count / plain_s,
        "ratio": plain_s / own_s,
        "ratio_same": plain_s / same_s,
        "cpu_ratio": plain_us / max(1, own_us),
        "cpu_ratio_same": plain_us / max(1, same_us),
        "server_cpu_us": own_us / count,
        "server_cpu_without_us": plain_us / count,
        "server_busy": own_us / 1e6 / own_s,
        "client_busy": client_s / own_s,
    }
    sample["others_busy"] = others_busy(sample, busy, own_s)
    return sample


def _open_streams(server: UnderTest, tokens: Sequence[str]) -> tuple[float, int]:
    """Opens a stream with each token; how long it took, and the server's CPU time (us)."""
    url = urlsplit(server.url)
    address = (url.hostname, url.port)
    requests = [_request(url.netloc, one) for one in tokens]
    with ExitStack() as close:
        before_us, began_s = server.cpu_us(), time.monotonic()
        sockets: list[socket.socket] = []
        for number, request in enumerate(requests):
            sock = close.enter_context(socket.socket())
            sock.connect(address)
            sock.send(request)
            sockets.append(sock)
            if number >= _BURST:
                _check(sockets[number - _BURST])
        for sock in sockets[-_BURST:]:
            _check(sock)
        return time.monotonic() - began_s, server.cpu_us() - before_us


def _request(host: str, bearer: str) -> bytes:
    lines = ["GET /events?topic=news HTTP/1.1", f"Host: {host}", "Accept: text/event-stream"]
    if bearer:
        lines.append(f"Authorization: Bearer {bearer}")
    return "\r\n".join((*lines, "", "")).encode()


def _check(sock: socket.socket) -> None:
    if not sock.recv(4096).startswith(b"HTTP/1.1 200 "):
        raise RuntimeError("a stream was refused")


def publish_with_token(setup: Setup) -> Result:
    """The same closed loop without and with a token."""
    secret = secrets.token_hex(32)
    headers = (("Authorization", f"Bearer {token(secret)}"),)
    samples = []
    for _ in range(setup.repeats):
        with Server(setup.server_cpu) as server:
            without = _publish_run(setup, server, ())
        with Server(setup.server_cpu, ("--jwt-key", secret)) as server:
            sample = _publish_run(setup, server, headers)
        sample["without_a_second"] = without["a_second"]
        sample["ratio"] = sample["a_second"] / without["a_second"]
        samples.append(sample)
    title = "publishes with a token (HS256) to those without"
    result = Result("publish-token", title, f"≥ {_PUBLISH_MIN}", samples, ("ratio", "x"))
    result.is_fan_out = False
    result.met = result.median("ratio") >= _PUBLISH_MIN
    result.notes = [f"{result.median('a_second'):,.0f} a second with a token"]
    return result


def _publish_run(setup: Setup, server: UnderTest, headers: Sequence[tuple[str, str]]) -> Sample:
    sample = closed_loop(setup, server, 32, headers=headers)
    if sample["refused"]:
        raise RuntimeError("a publish was refused")
    return sample


def token(secret: str, **claims: str) -> str:
    """A token as applications make them, an hour long."""
    now_s = int(time.time())
    said = {"mercure": _GRANTS, "iat": now_s, "exp": now_s + 3600, **claims}
    return jwt.encode(said, secret, "HS256")
