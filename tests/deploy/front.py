"""A real proxy under a public name with a certificate of its own, and clients of it."""

import asyncio
import base64
import hashlib
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.cli.commandline import environment
from tests.deploy.proxies import AS_ROOT, PATH, program, proxy_file
from tests.loopback import held_port
from tests.redis.tls import Authority

DOMAIN: Final = "sse.example.com"
TIMEOUT_S: Final = 60
RELOAD_S: Final = 5
STOP_S: Final = 10


class Front:
    """A running proxy.

    Attributes:
        url: its public address; no name server knows the name.
        authority: file of the certificate to trust.
        spki: hash of its key, for Chromium.
        log: file of its output.
    """

    def __init__(self, proxy: str, folder: Path, port: int) -> None:
        self.proxy = proxy
        self.port = port
        self.url = f"https://{DOMAIN}:{port}"
        self.folder = folder
        self.log = folder / "proxy.log"
        self.authority = self._issue()
        self._process: asyncio.subprocess.Process | None = None

    def _issue(self) -> Path:
        authority = Authority(self.folder)
        authority.server_context(DOMAIN)
        self.cert = self.folder / f"{DOMAIN}.pem"
        key = x509.load_pem_x509_certificate(self.cert.read_bytes()).public_key()
        der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.spki = base64.b64encode(hashlib.sha256(der).digest()).decode()
        return authority.path

    def write(self, node: str, edit: Callable[[str], str], *flags: str) -> None:
        """Writes its file, for a node at this address."""
        arguments = ("--domain", DOMAIN, "--listen", f"127.0.0.1:{self.port}", "--node", node)
        path = proxy_file(self.folder, self.proxy, *arguments, "--cert", str(self.cert), *flags)
        path.write_text(edit(path.read_text()))
        self.file = path

    async def start(self) -> None:
        """Starts it, and waits until it accepts connections."""
        commands = {
            "nginx": ("-e", "stderr", *AS_ROOT, "-c", str(self.file)),
            "haproxy": ("-W", "-db", "-f", str(self.file)),
            "caddy": ("run", "--adapter", "caddyfile", "--config", str(self.file)),
        }
        found = program(self.proxy)
        assert found is not None
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                found,
                *commands[self.proxy],
                stdout=log,
                stderr=log,
                env=environment(PATH=PATH, HOME=str(self.folder)),
            )
        await self._accepts()

    async def reload(self) -> None:
        """Has it read its file again, as an operator does, and waits until it has."""
        assert self._process is not None
        if self.proxy == "caddy":
            found = program("caddy")
            assert found is not None
            done = await asyncio.create_subprocess_exec(
                *(found, "reload", "--force", "--adapter", "caddyfile"),
                *("--config", str(self.file), "--address", f"unix/{self.folder}/admin.sock"),
                stderr=asyncio.subprocess.DEVNULL,
                env=environment(PATH=PATH, HOME=str(self.folder)),
            )
            assert await done.wait() == 0
            return
        before = _children(self._process.pid)
        number = signal.SIGHUP if self.proxy == "nginx" else signal.SIGUSR2
        async with asyncio.timeout(TIMEOUT_S):
            while not _children(self._process.pid) - before:
                # HAProxy ignores the signal while an earlier reload has not ended.
                self._process.send_signal(number)
                await self._has_child_beside(before)
        await self._accepts()

    async def stop(self) -> None:
        """Ends it with all that it holds."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _has_child_beside(self, before: set[int]) -> None:
        """Returns when there is a new process, or after some time without one."""
        assert self._process is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(RELOAD_S):
                while not _children(self._process.pid) - before:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

    async def _accepts(self) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                assert self._process is not None
                assert self._process.returncode is None, self.log.read_text()
                with suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    await writer.wait_closed()
                    return
                await asyncio.sleep(0.02)

    def tls(self) -> ssl.SSLContext:
        """What a client of HTTP/1.1 needs."""
        return ssl.create_default_context(cafile=str(self.authority))


def _children(pid: int) -> set[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return set(map(int, text.split()))


@asynccontextmanager
async def front(
    proxy: str,
    folder: Path,
    node: str,
    *flags: str,
    edit: Callable[[str], str] = lambda text: text,
) -> AsyncIterator[Front]:
    """A proxy in front of a node (`host:port`); `edit` changes its file."""
    with held_port() as held:
        running = Front(proxy, folder, held.getsockname()[1])
        running.write(node, edit, *flags)
        try:
            await running.start()
            yield running
        finally:
            await running.stop()


class Curl:
    """A stream that curl reads, event by event."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.lines: list[str] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.lines.append(line.decode().rstrip("\r\n"))

    @property
    def has_ended(self) -> bool:
        return self._reading.done()

    async def saw(self, *lines: str) -> None:
        """Waits until it has read these lines."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while not set(lines) <= set(self.lines):
                    assert not self.has_ended, self.lines
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"{lines} never came: {self.lines[-20:]}") from None

    async def close(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reading


def _curl_command(front: Front, path: str, flags: tuple[str, ...]) -> list[str]:
    where = f"{DOMAIN}:{front.port}:127.0.0.1"
    return [
        *("curl", "-sSN", "-i", "--cacert", str(front.authority), "--resolve", where),
        *("--noproxy", "*", *flags, front.url + path),
    ]


@asynccontextmanager
async def stream(front: Front, path: str, *flags: str) -> AsyncIterator[Curl]:
    """curl with these flags (`--http2`), with the response's head in its lines."""
    process = await asyncio.create_subprocess_exec(
        *_curl_command(front, path, flags), stdout=asyncio.subprocess.PIPE
    )
    reader = Curl(process)
    try:
        yield reader
    finally:
        await reader.close()


async def ask(front: Front, path: str, *flags: str) -> str:
    """What curl prints of a short answer, with its head."""
    process = await asyncio.create_subprocess_exec(
        *_curl_command(front, path, ("--max-time", str(TIMEOUT_S), *flags)),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    return out.decode().replace("\r\n", "\n")
