"""Where a server can listen, and how it says that it can't."""

import os
import socket
import stat

import pytest

from fastsse.config import Config, ConfigError
from fastsse.http.listeners import ListenError, open_tcp
from fastsse.server import Server
from tests.http.raw import get, opened, until


async def healthy(address: str) -> bool:
    async with opened(address) as raw:
        await raw.send(get("/healthz"))
        return (await raw.answer()).status == 200


async def refusal(**options) -> str:
    """The one line of a start that fails."""
    server = Server(Config(**{"port": 0, **options}))
    with pytest.raises(ListenError) as caught:
        await server.start()
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_port_in_use_says_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = await refusal(port=port)
        assert line == f"Port {port} is in use. Choose another with --port."
        line = await refusal(admin_port=port)
        assert line == f"Port {port} is in use. Choose another with --admin-port."


async def test_port_that_was_in_use_a_moment_ago_is_free(start) -> None:
    first = await start()
    port = first.port
    async with opened(first.addresses[0]) as raw:
        await raw.send(get("/healthz"))
        await raw.answer()
        await first.close()
    assert await healthy((await start(port=port)).addresses[0])


async def test_name_that_does_not_resolve_is_named() -> None:
    line = await refusal(host="no-such-host.invalid", publish_token="t")
    assert "no-such-host.invalid" in line
    assert "--host" in line


async def test_address_of_another_machine_is_named() -> None:
    assert "192.0.2.1: not an address of this machine" in await refusal(
        host="192.0.2.1", publish_token="t"
    )


async def test_several_hosts_share_one_port(start) -> None:
    server = await start(host=["127.0.0.1", "::1", "127.0.0.2"])
    assert server.addresses == [
        f"http://127.0.0.1:{server.port}",
        f"http://[::1]:{server.port}",
        f"http://127.0.0.2:{server.port}",
    ]
    for address in server.addresses:
        assert await healthy(address)


async def test_localhost_is_every_loopback_address_it_names(start) -> None:
    server = await start(host="localhost")
    assert server.addresses
    for address in server.addresses:
        assert await healthy(address)


def test_all_addresses_of_both_families_stand_side_by_side() -> None:
    options = Config(publish_token="t")
    sockets = open_tcp(["0.0.0.0", "::"], 0, "port", options)
    try:
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
        assert {sock.family for sock in sockets} == {socket.AF_INET, socket.AF_INET6}
    finally:
        for sock in sockets:
            sock.close()


def test_nothing_stays_open_when_one_address_fails() -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(ListenError):
        open_tcp(["127.0.0.1", "192.0.2.1"], 0, "port", Config(publish_token="t"))
    assert os.listdir("/proc/self/fd") == before


async def test_unix_socket_serves_and_is_removed_at_the_end(start, tmp_path) -> None:
    path = tmp_path / "sse.sock"
    server = await start(uds=str(path))
    assert (server.addresses, server.port) == ([f"unix:{path}"], 0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert await healthy(server.addresses[0])
    await server.close()
    assert not path.exists()


async def test_socket_that_a_killed_server_left_is_replaced(start, tmp_path) -> None:
    path = tmp_path / "sse.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert await healthy((await start(uds=str(path))).addresses[0])


async def test_unix_socket_in_use_is_left_alone(start, tmp_path) -> None:
    path = tmp_path / "sse.sock"
    server = await start(uds=str(path))
    assert await refusal(uds=str(path)) == f"{path} is in use. Choose another with --uds."
    assert await healthy(server.addresses[0])


async def test_file_that_is_no_socket_is_left_alone(tmp_path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    assert (
        await refusal(uds=str(path))
        == f"{path} exists and is not a socket. Choose another with --uds."
    )
    assert path.read_text() == "data"


async def test_socket_that_took_the_place_is_not_removed(start, tmp_path) -> None:
    path = tmp_path / "sse.sock"
    server = await start(uds=str(path))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(str(path))
        await server.close()
        assert path.exists()


async def test_directory_that_is_missing_is_named(tmp_path) -> None:
    path = tmp_path / "nowhere" / "sse.sock"
    assert (
        await refusal(uds=str(path))
        == f"{path}: No such file or directory. Choose another with --uds."
    )


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
async def test_inherited_socket_serves(start, tmp_path, family) -> None:
    sock = socket.socket(family)
    sock.bind(("127.0.0.1", 0) if family == socket.AF_INET else str(tmp_path / "s"))
    server = await start(fd=sock.detach())
    assert await healthy(server.addresses[0])


async def test_descriptor_that_is_no_socket_is_named(tmp_path) -> None:
    file = os.open(tmp_path / "file", os.O_CREAT | os.O_WRONLY)
    line = await refusal(fd=file)
    assert line == f"Descriptor {file} is not a socket. Give the right one with --fd."
    os.close(file)  # Which fails when it is not open any more.
    assert "is not a socket" in await refusal(fd=987_654)


async def test_inherited_public_socket_needs_a_token(start) -> None:
    for options in ({}, {"publish_token": "t"}):
        sock = socket.socket()
        sock.bind(("0.0.0.0", 0))
        server = Server(Config(fd=sock.detach(), drain=0, **options))
        if options:
            async with server:
                assert await healthy(f"http://127.0.0.1:{server.port}")
        else:
            with pytest.raises(ConfigError, match="publish_token"):
                await server.start()


async def test_pausing_keeps_who_waits(start) -> None:
    server = await start()
    server._worker.frontend.main.pause(0.05, "a test")
    async with opened(server.addresses[0]) as raw:
        await raw.send(get("/healthz"))
        assert (await raw.answer()).status == 200


async def test_running_out_of_descriptors_pauses_accepting_and_loses_no_connection(
    start, monkeypatch, caplog
) -> None:
    monkeypatch.setattr("fastsse.http.listeners.ACCEPT_PAUSE_S", 0.05)
    server = await start()
    listener = server._worker.frontend.main
    really_accept = socket.socket.accept
    failures = [OSError(24, "Too many open files")] * 2

    def accept(sock: socket.socket):
        if failures:
            raise failures.pop()
        return really_accept(sock)

    monkeypatch.setattr(socket.socket, "accept", accept)
    async with opened(server.addresses[0]) as raw:
        await raw.send(get("/healthz"))
        assert (await raw.answer()).status == 200
    assert not failures
    assert caplog.text.count("Accepting is paused") == 2
    await until(lambda: listener._paused is None)


async def test_a_connection_that_died_in_the_queue_delays_no_other(start, monkeypatch) -> None:
    server = await start()
    really_accept = socket.socket.accept
    failures = [ConnectionAbortedError(103, "Software caused connection abort")]

    def accept(sock: socket.socket):
        if failures:
            raise failures.pop()
        return really_accept(sock)

    monkeypatch.setattr(socket.socket, "accept", accept)
    assert await healthy(server.addresses[0])
    assert not failures
