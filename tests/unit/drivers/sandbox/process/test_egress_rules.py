"""Allow-lists as data: what parses, what is refused, and what the addresses mean."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from septet.drivers.sandbox.process import egress_rules as rules
from septet.model.errors import InvalidInput

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
names = st.lists(labels, min_size=1, max_size=4).map(".".join).filter(lambda name: not name.replace(".", "").isdigit())
ports = st.integers(1, 65535)
public = st.ip_addresses(v=4).filter(lambda address: rules.reachable(str(address)))
opened = (IPv4Network("192.168.7.0/24"),)


@given(names, ports)
def test_names(name: str, port: int) -> None:
    assert rules.parse_allow([name, f"{name}:{port}", f"{name.upper()}."]) == (
        rules.Destination(name, None, 0),
        rules.Destination(name, None, port),
        rules.Destination(name, None, 0),
    )


@given(public, ports)
def test_networks(address: IPv4Address, port: int) -> None:
    network = IPv4Network(address)
    assert rules.parse_allow([str(address), f"{network}:{port}"]) == (
        rules.Destination("", network, 0),
        rules.Destination("", network, port),
    )


@given(
    st.sampled_from(rules.NEVER + rules.PRIVATE).flatmap(
        lambda net: st.integers(0, net.num_addresses - 1).map(net.__getitem__)
    )
)
def test_shut_addresses_are_refused(address: IPv4Address) -> None:
    assert not rules.reachable(str(address))
    with pytest.raises(InvalidInput) as refused:
        rules.parse_allow([f"{address}:80"])
    assert str(address) in refused.value.message
    assert refused.value.hint


@given(st.text(max_size=60))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        (one,) = rules.parse_allow([text])
    except InvalidInput as refused:
        assert refused.details["field"] == "network.allow"
        return
    assert (one.network is None) != (one.name == "")
    assert 0 <= one.port <= 65535
    assert all(character.isalnum() or character in "._-" for character in one.name)


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32), st.integers(0, 3)), max_size=12))
def test_no_overlap_is_given_to_the_kernel(raw: list[tuple[int, int, int]]) -> None:
    pairs = [(IPv4Network((value, bits), strict=False), port) for value, bits, port in raw]
    kept = rules._disjoint(pairs)
    for index, (network, port) in enumerate(kept):
        assert port
        assert not any(port == other and network.overlaps(net) for net, other in kept[index + 1 :])
    for network, port in pairs:
        assert not port or any(port == other and network.subnet_of(net) for net, other in kept)


@pytest.mark.parametrize(
    "entry",
    ["", ":80", "a:", "a:0", "a:65536", "a:80:90", "a b", "-a", "a-.b", "a..b", "1.2.3", "1.2.3.4/33", "1.2.3.4/8",
     "[::1]:80", "fd00:ec2::254", "*", "a/24", "a;drop", 'a"', "a\n", "a:８０", "é.test", "x" * 64, "127.0.0.1"],
)  # fmt: skip
def test_what_is_refused(entry: str) -> None:
    with pytest.raises(InvalidInput):
        rules.parse_allow([entry])


def test_opened_parts_and_limits() -> None:
    assert rules.parse_allow(["192.168.7.7"], opened)[0].network == IPv4Network("192.168.7.7/32")
    assert rules.parse_allow(["0.0.0.0/0"])[0].network == IPv4Network("0.0.0.0/0")
    with pytest.raises(InvalidInput, match="private networks are closed"):
        rules.parse_allow(["192.168.8.7"], opened)
    with pytest.raises(InvalidInput) as refused:
        rules.parse_allow(["a"] * 65)
    assert refused.value.limit == "network.allow=64"
    assert rules.reachable("192.168.7.9", opened)
    assert not rules.reachable("fd00:ec2::254", opened)
    assert not rules.reachable("100.100.100.200", (IPv4Network("100.64.0.0/10"),))


def test_nameservers() -> None:
    servers = ("127.0.0.53", "10.0.0.2", " 10.0.0.2", "fe80::1", "9.9.9.999")
    text = "# x\n" + "".join(f"nameserver {server}\n" for server in servers)
    assert rules.nameservers(text) == ("10.0.0.2",)


def test_settings_networks() -> None:
    assert rules.networks(["10.0.0.0/8"]) == (IPv4Network("10.0.0.0/8"),)
    for bad in ("x", "fd00::/8", "10.0.0.1/8"):
        with pytest.raises(InvalidInput):
            rules.networks([bad])
