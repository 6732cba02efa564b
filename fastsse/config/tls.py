"""TLS: certificates, their keys, and what goes with them."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from fastsse.config.kinds import (
    Choice,
    Count,
    OptionGroup,
    Seconds,
    ValueKind,
    duration,
    option,
    read_list,
)

if TYPE_CHECKING:
    from fastsse.config.settings import Config

FILES = ValueKind(
    "PATH", "paths of PEM files, each once", ",".join, example="/etc/fastsse/example.com.pem"
)
_FILES_MAX = 100


def check_files(paths: Iterable[str]) -> tuple[str, ...]:
    """Paths, in the given order."""
    chosen = tuple(paths)
    if not all(path and path.isprintable() and len(path) <= 4096 for path in chosen):
        raise ValueError("must be paths")
    if len(set(chosen)) < len(chosen):
        raise ValueError("must be different")
    return chosen


Files = Annotated[
    tuple[str, ...],
    BeforeValidator(read_list),
    AfterValidator(check_files),
    Field(max_length=_FILES_MAX),
    FILES,
]
TlsVersion = Annotated[Literal["1.2", "1.3"], Choice]
TlsRecords = Annotated[Literal["openssl", "native"], Choice]


class TlsOptions(OptionGroup):
    """TLS in the server. With a certificate every TCP listener speaks TLS; a Unix socket does not.

    A stream then takes three descriptors instead of one; with `tls_records = native`, one again.
    """

    title = "TLS"

    tls_cert: Files = option(
        (),
        "PEM file with a certificate and its chain; turns TLS on. Repeat it for several: the name "
        "that a client asks for (SNI) chooses, and the first is for all other names. A reload "
        "reads the files again.",
    )
    tls_key: Files = option(
        (),
        "PEM file with the key of the certificate at the same place; leave it out if the "
        "certificates' files have the keys too.",
    )
    tls_min: TlsVersion = option("1.2", "Oldest version of TLS that is accepted.")
    tls_records: TlsRecords = option(
        "openssl",
        "Who seals the records of streams. native, experimental: the server itself after OpenSSL's "
        "handshake, for TLS 1.3 with AES-GCM; OpenSSL for all others.",
    )
    tls_handshakes: Count = option(
        256,
        "Concurrent handshakes and connections without a request, in each worker; above it the "
        "oldest is closed when it is a second old.",
        ge=1,
        le=100_000,
    )
    tls_handshake_time: Seconds = duration(
        "10s",
        "Time from a new connection to the first byte of its request.",
        least="100ms",
        most="5m",
    )
    hsts: Seconds = duration(
        "0s",
        "Browsers use only https for this host for this long (Strict-Transport-Security); 0s: off.",
        least="0s",
        most="2000d",
    )
    redirect_port: Count | None = option(
        None, "Redirect HTTP on this port to https (same hosts).", ge=0, le=65535
    )


def tls_conflicts(config: "Config") -> Iterator[tuple[str, str]]:
    """The broken relations of TLS options."""
    certificates, keys = len(config.tls_cert), len(config.tls_key)
    if keys and keys != certificates:
        yield "tls_key", f"as many as tls_cert, which is {certificates}, or left out"
    if not certificates:
        if config.hsts:
            yield "hsts", "0s, or tls_cert must be set: a browser ignores it without TLS"
        if config.redirect_port is not None:
            yield "redirect_port", "left out, or tls_cert must be set"
        if config.tls_records == "native":
            yield "tls_records", "openssl, or tls_cert must be set"
        return
    if config.uds is not None:
        yield "tls_cert", "left out when uds is given: a Unix socket stays plain"
    if 0 < config.hsts < 1:
        yield "hsts", "0s or at least 1s"
    if config.proxy_protocol:
        yield (
            "proxy_protocol",
            "off with tls_cert, because its header would come before the handshake",
        )
