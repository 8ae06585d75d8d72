"""TLS for a listener: certificates by host name, read again when their files change."""

from __future__ import annotations

import dataclasses
import ssl
from pathlib import Path

from septet.model.errors import InvalidInput


@dataclasses.dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate chain and its key, PEM files. `hosts` are the names it is for ("*.example.org" covers one
    label); the first certificate of a listener also serves every other name."""

    chain: Path
    key: Path
    hosts: tuple[str, ...] = ()


class Certificates:
    """Picks the certificate by the name that the client asks for (SNI)."""

    def __init__(self, certificates: tuple[Certificate, ...]) -> None:
        if not certificates:
            raise InvalidInput("a TLS listener needs a certificate", hint="name a certificate and its key")
        self._certificates = certificates
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._seen: tuple[tuple[int, int], ...] = ()
        self._first = self._load()
        # Connections start in this one and are moved on by name, so that a reload needs no new socket.
        self.context = _context()
        self.context.load_cert_chain(certificates[0].chain, certificates[0].key)
        self.context.sni_callback = self._choose

    def reload(self) -> None:
        """Reads the files again; connections made from now on use them. InvalidInput, and nothing changes, when
        one cannot be used."""
        self._first = self._load()

    def reload_if_changed(self) -> bool:
        """As `reload`, when a file's time or identity changed since; True when it did."""
        if self._stamps() == self._seen:
            return False
        self.reload()
        return True

    def _load(self) -> ssl.SSLContext:
        stamps = self._stamps()
        contexts: dict[str, ssl.SSLContext] = {}
        made = []
        for certificate in self._certificates:
            context = _context()
            try:
                context.load_cert_chain(certificate.chain, certificate.key)
            except (OSError, ssl.SSLError) as error:
                raise InvalidInput(
                    f"the certificate {certificate.chain} cannot be used: {error}",
                    hint="both files must be PEM, readable, and belong together",
                ) from error
            made.append(context)
            for host in certificate.hosts or _names(certificate.chain):
                contexts.setdefault(host.lower().rstrip("."), context)
        self._contexts, self._seen = contexts, stamps
        return made[0]

    def _stamps(self) -> tuple[tuple[int, int], ...]:
        stamps = []
        for certificate in self._certificates:
            for path in (certificate.chain, certificate.key):
                try:
                    found = path.stat()
                except OSError:
                    stamps.append((0, 0))
                else:
                    stamps.append((found.st_mtime_ns, found.st_ino))
        return tuple(stamps)

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
        host = (name or "").lower().rstrip(".")
        wildcard = "*." + host.partition(".")[2]
        connection.context = self._contexts.get(host) or self._contexts.get(wildcard) or self._first


def _names(chain: Path) -> tuple[str, ...]:
    """The host names that a certificate is for: its subject's alternative names."""
    from cryptography import x509  # only a platform with TLS needs it, and it takes its time

    try:
        leaf = x509.load_pem_x509_certificates(chain.read_bytes())[0]
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return ()
    return tuple(names.get_values_for_type(x509.DNSName))


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    return context
