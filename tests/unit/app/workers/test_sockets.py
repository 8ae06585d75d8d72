"""Addresses that several processes serve."""

from __future__ import annotations

import socket

import pytest

from septet.app.workers.sockets import SharedAddress
from septet.model.errors import InvalidInput, Unavailable


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def test_each_worker_has_a_socket_on_the_one_port() -> None:
    address = SharedAddress("127.0.0.1:0", 3, False)
    held = [socket.socket(fileno=address.copy(slot)) for slot in range(3)]
    assert {sock.getsockname()[1] for sock in held} == {port_of(address.url)}
    clients = [socket.create_connection(("127.0.0.1", port_of(address.url)), 5) for _ in range(60)]
    counts = []
    for sock in held:
        sock.setblocking(False)
        count = 0
        while True:
            try:
                sock.accept()[0].close()
            except BlockingIOError:
                break
            count += 1
        counts.append(count)
    assert sum(counts) == 60
    assert all(counts), "the kernel deals them out"
    for each in (*clients, *held):
        each.close()
    address.close()


def test_what_a_worker_did_not_accept_waits_for_the_next_one() -> None:
    address = SharedAddress("127.0.0.1:0", 1, False)
    first = socket.socket(fileno=address.copy(0))
    client = socket.create_connection(("127.0.0.1", port_of(address.url)), 5)
    first.close()
    second = socket.socket(fileno=address.copy(0))
    second.settimeout(5)
    accepted, _ = second.accept()
    client.sendall(b"x")
    assert accepted.recv(1) == b"x"
    for each in (client, accepted, second):
        each.close()
    address.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port_of(address.url)), 5)


def test_a_port_is_not_shared_with_a_stranger() -> None:
    address = SharedAddress("127.0.0.1:0", 2, False)
    with pytest.raises(Unavailable, match="cannot listen"):
        SharedAddress(f"127.0.0.1:{port_of(address.url)}", 2, False)
    address.close()
    again = SharedAddress(f"127.0.0.1:{port_of(address.url)}", 2, True)
    assert again.url == f"https://127.0.0.1:{port_of(address.url)}"
    again.close()


def test_what_is_no_address_is_said() -> None:
    with pytest.raises(InvalidInput):
        SharedAddress("nowhere", 2, False)
