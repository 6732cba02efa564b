"""systemd is notified by its own protocol: datagrams on the socket that it names."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastsse.supervisor.notify import Notifier


class Manager:
    """A service manager's ear."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(20)

    def on_readable(self) -> dict[str, str]:
        """The next datagram."""
        lines = self._socket.recv(4096).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    async def hears(self, name: str) -> dict[str, str]:
        """The next datagram that has such a line."""
        while True:
            on_readable = await asyncio.to_thread(self.on_readable)
            if name in on_readable:
                return on_readable

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    path = str(tmp_path / "notify")
    manager = Manager(path if request.param == "path" else f"@{path}")
    yield manager
    manager.close()


def test_states_are_sent_line_by_line(manager: Manager) -> None:
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "3000000", "OTHER": "x"}
    notifier = Notifier(environment)
    assert environment == {"OTHER": "x"}  # Children are not to speak for us.
    assert notifier.watchdog_s == 1.5
    notifier.ready("Serves\nall.")
    assert manager.on_readable() == {"READY": "1", "STATUS": "Serves all."}
    notifier.reloading()
    on_readable = manager.on_readable()
    assert on_readable["RELOADING"] == "1"
    assert int(on_readable["MONOTONIC_USEC"]) > 0
    notifier.stopping()
    assert manager.on_readable()["STOPPING"] == "1"
    notifier.alive()
    assert manager.on_readable() == {"WATCHDOG": "1"}
    notifier.close()
    notifier.alive()


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/there", "@absent"])
def test_a_missing_service_manager_disturbs_nothing(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.ready("x")
    notifier.close()


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "x"},
        {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
    ],
)
def test_watchdog_of_another_or_of_none_is_left_alone(variables: dict[str, str]) -> None:
    assert Notifier(variables).watchdog_s is None


def test_full_socket_is_not_waited_for(manager: Manager) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.address})
    for _ in range(5000):
        notifier.alive()
    notifier.close()


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_service_tells_its_whole_life(serve, tmp_path: Path, workers: str) -> None:
    manager = Manager(str(tmp_path / "notify"))
    try:
        service = await serve(
            "--workers", workers, NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="200000"
        )
        assert (await manager.hears("READY"))["STATUS"].endswith(" 0 streams.")
        await manager.hears("WATCHDOG")
        service.signal(signal.SIGHUP)
        await manager.hears("RELOADING")
        await manager.hears("READY")
        service.signal(signal.SIGTERM)
        await manager.hears("STOPPING")
        assert await service.ended() == 0
    finally:
        manager.close()


def test_watchdog_is_for_the_process_that_it_names() -> None:
    mine = {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid())}
    assert Notifier(mine).watchdog_s == 0.5
