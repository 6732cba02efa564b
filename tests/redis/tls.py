"""TLS in front of a Redis that has none: a proxy of ours, with a certificate made for the test."""

import datetime
import ipaddress
import pathlib
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.redis.proxy import Proxy


class Authority:
    """Issues certificates for servers; `path` is what clients are set to trust.

    Arguments:
        folder: where the files go.
        name: its own name.
    """

    def __init__(self, folder: pathlib.Path, name: str = "ours") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.path = folder / f"{name}.pem"
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        issued = self._builder(self._name, self._key).add_extension(constraints, critical=True)
        self.path.write_bytes(_pem(issued.sign(self._key, hashes.SHA256())))

    def server_context(self, host: str = "127.0.0.1") -> ssl.SSLContext:
        """What a server of this name or address needs."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a Redis")])
        names = x509.SubjectAlternativeName([_general_name(host)])
        issued = self._builder(subject, key).add_extension(names, critical=False)
        path = self._folder / f"{host}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        path.write_bytes(private + _pem(issued.sign(self._key, hashes.SHA256())))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        public = key.public_key()
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )


class TlsProxy(Proxy):
    """Takes TLS, and passes on what is in it."""

    scheme = "rediss"

    def __init__(self, target: int, context: ssl.SSLContext) -> None:
        super().__init__(target)
        self.tls = context


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
