"""Addresses, TLS with certificates by host name, reload."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.unit.dataplane.front.conftest import Client, FakeDispatcher, Start

from septet.dataplane.certificates import Certificate, Certificates
from septet.dataplane.dispatch import ListenerFacts
from septet.dataplane.listener import Listener
from septet.model.errors import InvalidInput, Unavailable

GET = b"GET /fn/a/b HTTP/1.1\r\nHost: a\r\n\r\n"


def certificate(folder: Path, name: str, *hosts: str) -> Certificate:
    """A self-signed certificate with that common name, in files of that name."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    chain, keys = folder / "chain.pem", folder / "key.pem"
    folder.mkdir(exist_ok=True)
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    keys.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return Certificate(chain, keys, hosts)


async def shown(port: int, host: str | None) -> tuple[str, Client]:
    """The common name of the certificate that a client asking for that host sees."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=host or "")
    raw = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    name = x509.load_der_x509_certificate(raw).subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    return str(name), Client(reader, writer)


async def test_certificates_by_host_name_and_reload(start: Start, tmp_path: Path) -> None:
    certificates = Certificates(
        (
            certificate(tmp_path / "1", "first", "one.example"),
            certificate(tmp_path / "2", "second", "two.example", "*.wild.example"),
        )
    )
    async with start(certificates=certificates) as bench:
        port = bench.listener.port
        for host, expected in [
            ("one.example", "first"),
            ("TWO.example", "second"),
            ("a.wild.example", "second"),
            ("a.b.wild.example", "first"),
            ("other.example", "first"),
        ]:
            name, client = await shown(port, host)
            assert name == expected, host
            await client.send(GET)
            assert (await client.response()).status == 200
            client.close()
        assert bench.link.uploads[0].lines()[b"x-forwarded-proto"] == b"https"
        assert not certificates.reload_if_changed()
        certificate(tmp_path / "2", "renewed")
        assert certificates.reload_if_changed()
        name, client = await shown(port, "two.example")
        client.close()
        assert name == "renewed"
        (tmp_path / "1" / "chain.pem").write_text("not a certificate")
        with pytest.raises(InvalidInput, match="cannot be used"):
            bench.listener.reload()
        name, client = await shown(port, "one.example")
        client.close()
        assert name == "first"


async def test_the_first_certificate_is_renewed_too(start: Start, tmp_path: Path) -> None:
    certificates = Certificates((certificate(tmp_path / "1", "first"),))
    async with start(certificates=certificates) as bench:
        certificate(tmp_path / "1", "renewed")
        bench.listener.reload()
        name, client = await shown(bench.listener.port, "a.example")
        client.close()
        assert name == "renewed"


async def test_plain_http_on_a_tls_listener_gets_nowhere(start: Start, tmp_path: Path) -> None:
    async with start(certificates=Certificates((certificate(tmp_path / "1", "first"),))) as bench:
        client = await bench.connect()
        await client.send(GET)
        assert b"200" not in await client.closed()
        assert not bench.link.uploads


async def test_a_tls_client_that_goes_away_cancels_its_call(start: Start, tmp_path: Path) -> None:
    async with start(certificates=Certificates((certificate(tmp_path / "1", "first"),))) as bench:
        bench.link.script = lambda upload: None
        _, client = await shown(bench.listener.port, "a.example")
        await client.send(GET)
        await bench.link.began.wait()
        client.close()
        async with asyncio.timeout(5):
            while not bench.link.uploads[0].cancelled:
                await asyncio.sleep(0.01)


async def test_port_zero_takes_a_free_one_and_says_which() -> None:
    listener = Listener(FakeDispatcher(), ListenerFacts(), address="127.0.0.1:0")
    await listener.start()
    assert listener.port > 0
    assert listener.url == f"http://127.0.0.1:{listener.port}"
    await listener.drain(0.1)


async def test_an_address_in_use_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listener = Listener(FakeDispatcher(), ListenerFacts(), address=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(Unavailable, match="cannot listen"):
            await listener.start()


@pytest.mark.parametrize("address", ["", "8080", "a:b", "127.0.0.1:99999", "127.0.0.1:"])
async def test_what_is_no_address_is_invalid(address: str) -> None:
    with pytest.raises((InvalidInput, Unavailable)):
        await Listener(FakeDispatcher(), ListenerFacts(), address=address).start()


async def test_unix_sockets(tmp_path: Path) -> None:
    path = tmp_path / "s"
    dispatcher = FakeDispatcher()
    listener = Listener(dispatcher, ListenerFacts(trusted=("unix",)), address=f"unix:{path}")
    await listener.start()
    assert path.stat().st_mode & 0o777 == 0o600
    client = Client(*await asyncio.open_unix_connection(str(path)))
    await client.send(GET)
    assert (await client.response()).status == 200
    assert dispatcher.peers[0].trusted
    client.close()
    await listener.drain(1.0)
    assert not path.exists()


async def test_a_socket_made_elsewhere() -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    dispatcher = FakeDispatcher()
    listener = Listener(dispatcher, ListenerFacts(name="gateway", context=("ns", "i-1")), sock=sock)
    await listener.start()
    client = Client(*await asyncio.open_connection("127.0.0.1", listener.port))
    await client.send(GET)
    assert (await client.response()).status == 200
    assert dispatcher.peers[0].listener.context == ("ns", "i-1")
    client.close()
    await listener.drain(1.0)
