# ruff: noqa: ASYNC240 — it reads files of the system.
"""A long stream is read by pages, in memory that does not depend on its length."""

from pathlib import Path

import httpx

from tests.supervisor.service import Service

APPEND = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n" * 8192
APPENDS = 160
# More than the pages that are sent and read ahead; far less than the stream.
ROOM_BYTES = 32 * 1024 * 1024


def memory_bytes(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


async def test_a_long_stream_is_read_in_constant_memory(tmp_path: Path) -> None:
    head = {"Content-Type": "text/plain"}
    options = ("--store", f"sqlite:{tmp_path}/h.db", "--history-total", "8MiB", "--port", "0")
    service = await (await Service.start(*options)).wait()
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            stream, pid = f"{service.url}/streams/long", service.process.pid
            assert (await client.put(stream, headers=head)).status_code == 201
            for _ in range(APPENDS):
                answer = await client.post(stream, content=APPEND, headers=head)
                assert answer.status_code == 204
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # The peak begins again.
            before, got, offset = memory_bytes(pid, "VmRSS"), 0, "-1"
            while True:
                page = await client.get(f"{stream}?offset={offset}")
                assert page.content == APPEND * (len(page.content) // len(APPEND))
                got += len(page.content)
                offset = page.headers["stream-next-offset"]
                if "stream-up-to-date" in page.headers:
                    break
            assert got == len(APPEND) * APPENDS > 2 * ROOM_BYTES
            assert memory_bytes(pid, "VmHWM") - before < ROOM_BYTES
    finally:
        await service.stop()
