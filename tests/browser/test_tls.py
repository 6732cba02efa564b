"""A page of a server with a certificate of its own: streams, publishes and the console's page."""

import base64
import hashlib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fastsse.config import Config
from fastsse.server import Server
from tests.browser.chromium import PROGRAM, chromium
from tests.certificates import issue

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")
DOMAIN = "sse.example.com"


def key_hash(certificate: str) -> str:
    key = x509.load_pem_x509_certificate(Path(certificate).read_bytes()).public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


@pytest.mark.parametrize("records", ["openssl", "native"])
async def test_a_page_streams_and_publishes_over_tls_of_the_server(
    tmp_path: Path, records: str
) -> None:
    certificate, key = issue(tmp_path, DOMAIN)
    options = {"port": 0, "tls_cert": certificate, "tls_key": key, "allowed_hosts": [DOMAIN]}
    options["tls_records"] = records
    flags = (
        f"--ignore-certificate-errors-spki-list={key_hash(certificate)}",
        f"--host-resolver-rules=MAP {DOMAIN} 127.0.0.1",
    )
    async with (
        Server(Config(**options)) as server,
        chromium(tmp_path / "profile", *flags) as browser,
    ):
        page = await browser.open(f"https://{DOMAIN}:{server.port}/healthz")
        await page.watch("news", "/events?topic=news")
        await page.until("news", lambda seen: ["open"] in seen)
        for number in range(3):
            server.publish("news", f"event {number}")
            await page.until("news", lambda seen, n=number: seen[-1][1:2] == [f"event {n}"])
        status = await page.run(
            "fetch('/events?topic=news', {method: 'POST', body: 'from the page'})"
            ".then((answer) => answer.status)"
        )
        assert status == 200
        await page.until("news", lambda seen: seen[-1][1:2] == ["from the page"])
        released = server._worker.frontend.counters()["tls_records_released"]
        assert released == (1 if records == "native" else 0)
