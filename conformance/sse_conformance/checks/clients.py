"""The same events through client libraries that people use."""

from __future__ import annotations

import http.client
import importlib
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sse_conformance import endings
from sse_conformance.eventstream import EventStream, Message
from sse_conformance.hub import Hub
from sse_conformance.registry import Case, Failed, NotTested, check, expect
from sse_conformance.wire import WAIT_S

TEXTS = ("one", "two\nlines", "\u4e2d \U0001f600")
Reader = Callable[[str, dict[str, str]], Iterator[Message]]
_NODE = Path(__file__).parent.parent / "clients" / "eventsource.mjs"


def _module(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise NotTested(f"pip install {package}") from None


def _reads(case: Case, reader: Reader) -> None:
    """A library reads what is published while it is connected."""
    hub, topic = case.hub, case.hub.topic()
    request = hub.adapter.listen([topic])
    url = f"http://{hub.authority}{request.target}"
    stop = threading.Event()
    publisher = threading.Thread(target=_publish_until, args=(hub, topic, stop))
    publisher.start()
    found: list[str] = []
    try:
        for message in _read_with(reader, url, dict(request.headers)):
            event = None if message.type == "open" else hub.adapter.unwrapped(message)
            if event is not None and event.data != "waiting":
                found.append(event.data)
            stop.set()
            if len(found) == len(TEXTS):
                break
    finally:
        stop.set()
        publisher.join()
    expect(tuple(found) == TEXTS, f"read {found}")


def _read_with(reader: Reader, url: str, headers: dict[str, str]) -> Iterator[Message]:
    """What a library reads; any error of its own fails the check."""
    try:
        yield from reader(url, headers)
    except Exception as error:
        raise Failed(f"{type(error).__name__}: {error}") from error


def _publish_until(hub: Hub, topic: str, connected: threading.Event) -> None:
    """Events until the library has received one, then those that count."""
    for _ in range(200):
        hub.send(topic, "waiting")
        if connected.wait(0.05):
            break
    with suppress(Exception):
        hub.send(topic, *TEXTS)
    hub.hang_up()


@check("clients.http_client", "Python's http.client reads the stream")
def http_client(case: Case) -> None:
    def read(url: str, headers: dict[str, str]) -> Iterator[Message]:
        rest = url.removeprefix("http://")
        authority, _, path = rest.partition("/")
        connection = http.client.HTTPConnection(authority, timeout=WAIT_S)
        parser = EventStream()
        try:
            connection.request("GET", f"/{path}", headers=headers)
            response = connection.getresponse()
            while data := response.read1(65536):
                yield from parser.feed(data)
        finally:
            connection.close()

    _reads(case, read)


@check("clients.httpx_sse", "httpx-sse reads the stream")
def httpx_sse(case: Case) -> None:
    httpx, library = _module("httpx", "httpx-sse"), _module("httpx_sse", "httpx-sse")

    def read(url: str, headers: dict[str, str]) -> Iterator[Message]:
        with (
            httpx.Client(timeout=WAIT_S, trust_env=False) as client,
            library.connect_sse(client, "GET", url, headers=headers) as source,
        ):
            for event in source.iter_sse():
                # It gives out blocks without data too, which the standard does not dispatch.
                if event.data:
                    yield Message(event.data, event.event, event.id)

    _reads(case, read)


@check("clients.sseclient_py", "sseclient-py with requests reads the stream")
def sseclient_py(case: Case) -> None:
    library, requests = _module("sseclient", "sseclient-py"), _module("requests", "requests")

    def read(url: str, headers: dict[str, str]) -> Iterator[Message]:
        with requests.Session() as session:
            session.trust_env = False
            response = session.get(url, headers=headers, stream=True, timeout=WAIT_S)
            for event in library.SSEClient(response).events():
                yield Message(event.data, event.event, event.id or "")

    _reads(case, read)


@contextmanager
def _running(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with endings.watched(process.pid):
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


@check("clients.curl", "curl -N shows the stream")
def curl(case: Case) -> None:
    program = shutil.which("curl")
    if program is None:
        raise NotTested("curl is not installed")

    def read(url: str, headers: dict[str, str]) -> Iterator[Message]:
        words = [word for name, value in headers.items() for word in ("-H", f"{name}: {value}")]
        parser = EventStream()
        command = (program, "-sN", "--noproxy", "*", "--max-time", str(int(WAIT_S)))
        with _running(*command, *words, url) as process:
            assert process.stdout is not None
            while line := process.stdout.readline():
                yield from parser.feed(line)

    _reads(case, read)


def _node(case: Case) -> tuple[str, str]:
    program = shutil.which("node")
    if program is None:
        raise NotTested("node is not installed")
    if not (Path(case.node_modules) / "eventsource").is_dir():
        raise NotTested("npm install eventsource, and --node-modules FOLDER")
    return program, case.node_modules


def _node_messages(case: Case, url: str, within_s: float = WAIT_S * 3) -> Iterator[Message]:
    program, modules = _node(case)
    with _running(program, str(_NODE), modules, url) as process:
        assert process.stdout is not None
        watch = threading.Timer(within_s, process.kill)
        watch.start()
        try:
            while line := process.stdout.readline():
                yield Message(**json.loads(line))
        finally:
            watch.cancel()


@check("clients.eventsource", "npm's eventsource reads the stream")
def eventsource(case: Case) -> None:
    _node(case)  # Says what is missing.
    _reads(case, lambda url, headers: _node_messages(case, url))


@check("clients.reconnect", "npm's eventsource misses nothing when connections are cut",
       source="HTML 9.2", needs=["resume", "eventsource_resume"], is_long=True)  # fmt: skip
def reconnect(case: Case) -> str:
    _node(case)
    hub, topic = case.hub, case.hub.topic()
    count = 40
    with Cutter(hub.host, hub.port) as relay:
        target = hub.adapter.listen([topic]).target
        found: list[str] = []
        url = f"http://127.0.0.1:{relay.port}{target}"
        # The library waits three seconds before each of its four returns.
        for message in _node_messages(case, url, WAIT_S * 12):
            event = hub.adapter.unwrapped(message)
            if message.type == "open" and relay.connections == 1:
                hub.send(topic, "0")
            if event is None or message.type == "open":
                continue
            found.append(event.data)
            if len(found) == count:
                break
            # A cut while an event is on its way: the client has to fetch it.
            if len(found) % 10 == 5:
                relay.cut()
            hub.send(topic, str(len(found)))
    expect(found == list(map(str, range(count))), f"read {found}")
    return f"{relay.connections} connections"


class Cutter:
    """A relay for TCP that can cut all its connections."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Cutter:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()
        for each in self._open:
            each.close()

    def cut(self) -> None:
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            far = socket.create_connection(self._to)
            self._open += [near, far]
            self._start(self._copy, near, far)
            self._start(self._copy, far, near)

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
