"""The benchmark of TLS runs, with the proxies that are here: small, its figures mean nothing."""

from bench import tls
from bench.proxies import PROXIES, program


def test_a_delivery_a_handshake_and_a_stream_of_each_are_measured() -> None:
    with tls.site() as here:
        for name in ("none", "server", "native", *filter(program, PROXIES)):
            delivered = tls.deliver(here, name, 3, 20, 0.3)
            assert delivered["lost"] == 0
            assert delivered["CPU µs a delivery"] > 0
            assert "KiB a stream" in tls.memory(here, name, 3)
            if name == "native":
                continue  # Its handshakes are the server's.
            shaken = tls.handshakes(here, "full" if name == "none" else name, 3)
            assert shaken["with the server's"] >= shaken["CPU µs a handshake"] > 0
