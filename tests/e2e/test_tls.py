"""TLS by flag: certificates by host name, taken up anew when their files change."""

from __future__ import annotations

import datetime
import socket
import ssl
import time
import urllib.parse
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from septet_platform import Platform


def certificate(folder: Path, host: str) -> tuple[Path, Path, int]:
    """Writes a self-signed certificate; returns its files and its serial number."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / f"{host}.pem", folder / f"{host}.key"
    form = serialization.PrivateFormat.PKCS8
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return cert_file, key_file, made.serial_number


def served(platform: Platform, host: str) -> tuple[int, bytes]:
    """The serial number of the certificate that a client of `host` gets, and the status line of an answer."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    address = urllib.parse.urlsplit(platform.url)
    with (
        socket.create_connection((str(address.hostname), address.port or 443), 10) as plain,
        context.wrap_socket(plain, server_hostname=host) as link,
    ):
        der = link.getpeercert(binary_form=True)
        assert der is not None
        link.sendall(b"GET /healthz HTTP/1.1\r\nHost: %b\r\n\r\n" % host.encode())
        return x509.load_der_x509_certificate(der).serial_number, link.recv(65536).split(b"\r\n")[0]


def test_certificates_by_host_name_and_anew(tmp_path: Path) -> None:
    one = certificate(tmp_path, "one.test")
    two = certificate(tmp_path, "two.test")
    flags = []
    for cert, key, _ in (one, two):
        flags += ["--tls-cert", str(cert), "--tls-key", str(key)]
    with Platform(tmp_path / "data", *flags) as platform:
        assert platform.url.startswith("https://")
        assert served(platform, "one.test") == (one[2], b"HTTP/1.1 200 OK")
        assert served(platform, "two.test") == (two[2], b"HTTP/1.1 200 OK")
        fresh = certificate(tmp_path, "one.test")
        end = time.monotonic() + 20
        while served(platform, "one.test")[0] != fresh[2]:
            assert time.monotonic() < end
            time.sleep(0.2)
