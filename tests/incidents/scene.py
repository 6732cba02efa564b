"""What an operator has: a service, Prometheus with the alerts of `deploy/`, the console, `why`."""

import asyncio
import contextlib
import json
import re
import shutil
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.cli.commandline import ROOT, command, environment
from tests.supervisor.service import Service

PROMETHEUS = shutil.which("prometheus")
PASSWORD = "open-sesame"
#: Every duration in the alerts is divided by this, so that none has to be waited for. Thresholds
#: and expressions stay.
FASTER = 60
SCRAPE_S = 0.5
PATIENCE_S = 150.0
_DURATION = re.compile(r"(?<=\[)\d+[smhd](?=\])|(?<=offset )\d+[smhd]")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _faster(text: str) -> str:
    seconds = int(text[:-1]) * _SECONDS[text[-1]]
    return f"{max(1000, seconds * 1000 // FASTER)}ms"


def faster_rules() -> dict[str, Any]:
    """The alerts, on a clock that runs faster."""
    rules: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text("utf-8"))
    for rule in rules["groups"][0]["rules"]:
        rule["expr"] = _DURATION.sub(lambda found: _faster(found[0]), rule["expr"])
        if "for" in rule:
            rule["for"] = _faster(rule["for"])
    return rules


class Watch:
    """A Prometheus with the alerts, which scrapes what it is given."""

    def __init__(self, folder: Path, client: httpx.AsyncClient) -> None:
        self._targets = folder / "targets.json"
        self._client = client

    def scrape(self, url: str) -> None:
        """Scrapes this service from now on, and nothing else."""
        scheme, _, address = url.partition("://")
        targets = [{"targets": [address], "labels": {"__scheme__": scheme}}]
        later = self._targets.with_suffix(".new")
        later.write_text(json.dumps(targets))
        later.replace(self._targets)

    async def firing(self, url: str) -> set[str]:
        """The alerts that fire for this service."""
        query = f'ALERTS{{alertstate="firing",instance="{url.partition("://")[2]}"}}'
        answer = await self._client.get("/api/v1/query", params={"query": query})
        found = answer.json()["data"]["result"]
        return {one["metric"]["alertname"] for one in found}


@asynccontextmanager
async def watching(folder: Path) -> AsyncIterator[Watch]:
    """A Prometheus for a while."""
    assert PROMETHEUS is not None
    (folder / "targets.json").write_text("[]")
    (folder / "alerts.yml").write_text(yaml.safe_dump(faster_rules()))
    interval = f"{round(SCRAPE_S * 1000)}ms"
    settings = {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "rule_files": ["alerts.yml"],
        "scrape_configs": [
            {
                "job_name": "fastsse",
                "file_sd_configs": [{"files": ["targets.json"], "refresh_interval": "1s"}],
                "tls_config": {"insecure_skip_verify": True},
            }
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    process = await asyncio.create_subprocess_exec(
        PROMETHEUS, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        "--web.listen-address=127.0.0.1:0", "--log.format=json",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            while True:
                line = json.loads(await process.stderr.readline())
                if "address" in line and line.get("msg") == "Listening on":
                    break
        reading = asyncio.create_task(process.stderr.read())
        url = f"http://{line['address']}"
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
            yield Watch(folder, client)
        reading.cancel()
    finally:
        process.terminate()
        await process.wait()


class Scene:
    """The stage of one incident.

    Arguments:
        folder: of its own.
        watch: a Prometheus.
    """

    def __init__(self, folder: Path, watch: Watch) -> None:
        self.folder = folder
        self.watch = watch
        self.url = ""
        self.client = httpx.AsyncClient(
            trust_env=False, verify=False, timeout=10, limits=httpx.Limits(max_connections=4)
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._stack = contextlib.AsyncExitStack()

    async def serve(self, *options: str, prefix: tuple[str, ...] = (), **variables: str) -> Service:
        """Starts the service, and has it watched."""
        words = [
            *prefix, *command(["serve", "--log-format", "json", "--port", "0", "--drain", "0s"]),
            "--console-password", PASSWORD, *options,
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            *words,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=environment(**variables),
            cwd=self.folder,
        )
        service = Service(process)
        self._stack.push_async_callback(_ended, service)
        await service.wait()
        self.url = service.url
        self.watch.scrape(service.url)
        return service

    async def enter(self, context: Any) -> Any:
        """Enters what is left at the end."""
        if hasattr(context, "__aenter__"):
            return await self._stack.enter_async_context(context)
        return self._stack.enter_context(context)

    def go_on(self, doing: Any) -> None:
        """Runs a coroutine until the end of the incident."""
        self._tasks.append(asyncio.create_task(doing))

    async def ask(self, path: str) -> Any:
        """What the console gets from this path, as JSON."""
        headers = {"Authorization": f"Bearer {PASSWORD}"}
        answer = await self.client.get(f"{self.url}{path}", headers=headers)
        answer.raise_for_status()
        return answer.json()

    async def publish(self, topic: str, data: str) -> int:
        """Publishes; returns the status."""
        url = f"{self.url}/events"
        answer = await self.client.post(url, params={"topic": topic}, content=data)
        return answer.status_code

    async def found(self, name: str) -> dict[str, str]:
        """What the console's Overview says under this name, when it says it."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    for check in (await self.ask("/admin/explain"))["checks"]:
                        if check["name"] == name:
                            return dict(check)
                await asyncio.sleep(0.1)

    async def fires(self, alert: str) -> None:
        """Returns when an alert fires."""
        async with asyncio.timeout(PATIENCE_S):
            while alert not in await self.watch.firing(self.url):
                self.check()
                await asyncio.sleep(0.1)

    def check(self) -> None:
        """Raises what a coroutine of `go_on` has raised."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def why(self, *arguments: str, **variables: str) -> dict[str, Any]:
        """What `fastsse why` says."""
        words = ["why", "--operator", PASSWORD, "--no-path", "--json", *arguments]
        if "--url" not in arguments:
            words += ["--url", self.url]
        process = await asyncio.create_subprocess_exec(
            *command(words),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(**variables),
        )
        out, err = await process.communicate()
        assert process.returncode in (0, 1), err
        said: dict[str, Any] = json.loads(out)
        return said

    async def close(self) -> None:
        """Ends the incident and the service."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.client.aclose()
        await self._stack.aclose()


async def _ended(service: Service) -> None:
    with contextlib.suppress(ProcessLookupError):
        service.signal(9)
    await service.process.wait()
    with contextlib.suppress(Exception):
        await service.ended()


def say(text: str) -> None:
    """A line for who waits."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
