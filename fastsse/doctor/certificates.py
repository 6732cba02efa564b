"""The server's own certificates: whether they load with their keys, how long they are valid, and
whether each name that the server answers to is in one of them."""

import ipaddress
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from fastsse._door import Certificates, TlsError
from fastsse.doctor.finding import Finding, Verdict

_DAY_S = 86_400
#: The server logs a warning for the same time.
EXPIRES_SOON_DAYS = 14
_READ_WHY = "The server does not start with it, and a reload with it is refused."
_RENEW = "Renew it, then fastsse reload. certbot does both: docs/guides/tls.md, Renewal."


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The TLS options of a server.

    Arguments:
        certificates, keys: PEM files, in the same order; without keys they are in the former.
        names: host names that the server answers to.
        now_s: the time, seconds since 1970.
    """

    certificates: tuple[str, ...]
    keys: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    now_s: float = field(default_factory=time.time)


def examine_certificates(files: TlsFiles) -> tuple[Finding, ...]:
    """One finding for each certificate, and for each name that none of them has. Reads files."""
    keys = files.keys or files.certificates
    pairs = list(zip(files.certificates, keys, strict=True))
    findings, loaded = [], []
    for certificate, key in pairs:
        try:
            one = Certificates([(certificate.encode(), key.encode())])
        except TlsError as error:
            findings.append(_unusable(certificate, key, error))
        else:
            findings.append(_validity(certificate, one.expires_s[0], files.now_s))
            loaded.append(one)
    return (*findings, *_missing_names(files.names, loaded))


def _unusable(certificate: str, key: str, error: TlsError) -> Finding:
    name = f"tls_cert {certificate}"
    if error.part == "library":
        return Finding(
            name, Verdict.FAIL, "not read", "OpenSSL 3", f"{error.detail}.", "apt install libssl3"
        )
    if "mismatch" in error.detail:
        value, how = f"{key} is the key of another certificate", "Name the files in the same order."
    else:
        file = certificate if error.part == "certificate" else key
        value = f"{file} has no usable {error.part}" + (f": {error.detail}" if error.detail else "")
        how = "A PEM file that the server's user can read; the key without a passphrase."
    return Finding(name, Verdict.FAIL, value, "a certificate and its key", _READ_WHY, how)


def _validity(certificate: str, expires_s: int, now_s: float) -> Finding:
    days = (expires_s - now_s) / _DAY_S
    if not expires_s:
        verdict, value = Verdict.UNKNOWN, "no readable end"
    elif days <= 0:
        verdict, value = Verdict.FAIL, f"expired {-days:.1f} days ago"
    else:
        verdict = Verdict.WARN if days < EXPIRES_SOON_DAYS else Verdict.OK
        value = f"valid for {days:.1f} days"
    why = "Its key belongs to it. Clients refuse an expired certificate; the server serves it."
    needed = f"at least {EXPIRES_SOON_DAYS} days"
    return Finding(f"tls_cert {certificate}", verdict, value, needed, why, _RENEW)


def _missing_names(names: tuple[str, ...], loaded: list[Certificates]) -> Iterator[Finding]:
    for name in names:
        bare = name.rstrip(".")
        if not loaded or _is_address(bare) or bare == "localhost":
            continue
        if not any(one.has_name(0, bare.encode()) for one in loaded):
            yield Finding(
                f"allowed_hosts {name}",
                Verdict.WARN,
                "in no certificate",
                "in one of tls_cert",
                "Clients that ask for this name get the first certificate, and refuse it.",
                f"A certificate for {name} as one more --tls-cert, or remove the name.",
            )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
