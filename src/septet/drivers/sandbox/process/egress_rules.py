"""Which packets leave an instance: the allow-list as data, and the nftables rules as text. Pure functions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_network

from septet.model.errors import InvalidInput

# Never reachable, whatever an allow-list or the operator says: this host, link-local with the clouds' metadata,
# multicast, reserved, and the metadata addresses that lie elsewhere. IPv6 (fd00:ec2::254 too) is shut as a whole.
NEVER = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "100.100.100.200/32",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "192.0.0.192/32",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
# Not reachable unless the operator opens a part of it.
PRIVATE = tuple(
    IPv4Network(network)
    for network in ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15")
)
MAX_ENTRIES = 64
NO_ROUTER = "forwarding was off"
FAMILY = "sv"  # interfaces of every platform on this host start so
_NAME = re.compile(r"(?=.{1,253}$)(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")


@dataclass(frozen=True, slots=True)
class Destination:
    """One entry of an allow-list: a name or a network, and a port (0 for all)."""

    name: str
    network: IPv4Network | None
    port: int


def parse_allow(allow: Iterable[str], opened: Iterable[IPv4Network] = ()) -> tuple[Destination, ...]:
    """Entries "host", "host:port", "cidr" or "cidr:port". InvalidInput names the entry and what is wrong with it.

    A network that lies wholly where nothing is ever let through is refused rather than silently dead.
    """
    entries = tuple(allow)
    if len(entries) > MAX_ENTRIES:
        raise _refused(f"{len(entries)} entries", "an allow-list has at most 64", limit=f"network.allow={MAX_ENTRIES}")
    return tuple(_parse(entry, tuple(opened)) for entry in entries)


def _parse(entry: str, opened: tuple[IPv4Network, ...]) -> Destination:
    host, colon, digits = entry.partition(":")
    if ":" in digits or entry.startswith("["):
        raise _refused(entry, "IPv6 destinations are not offered; name an IPv4 network or a host name")
    if colon and not (digits.isascii() and digits.isdigit() and 1 <= len(digits) <= 5 and 1 <= int(digits) <= 65535):
        raise _refused(entry, "a port is a number from 1 to 65535")
    port = int(digits) if colon else 0
    if re.fullmatch(r"[0-9./]+", host):
        return Destination("", _network(entry, host, opened), port)
    name = host.lower().removesuffix(".")
    if not _NAME.fullmatch(name):
        raise _refused(entry, 'use "host", "host:port", "network/bits" or "network/bits:port"')
    return Destination(name, None, port)


def _network(entry: str, text: str, opened: tuple[IPv4Network, ...]) -> IPv4Network:
    try:
        network = IPv4Network(text)
    except ValueError as error:
        raise _refused(entry, f"not an IPv4 network: {error}") from None
    if any(network.subnet_of(shut) for shut in NEVER):
        raise _refused(entry, "this host, link-local, metadata and multicast addresses are never reachable")
    private = any(network.subnet_of(shut) for shut in PRIVATE)
    if private and not any(network.overlaps(part) for part in opened):
        raise _refused(entry, "private networks are closed; the operator can open a part of them")
    return network


def _refused(entry: str, why: str, limit: str = "") -> InvalidInput:
    return InvalidInput(
        f"network.allow: {entry!r} cannot be allowed", hint=why, limit=limit, details={"field": "network.allow"}
    )


def reachable(address: str, opened: Iterable[IPv4Network] = ()) -> bool:
    """Whether the rules below would let an address through for an instance without an allow-list."""
    parsed: IPv4Address | IPv6Address = ip_address(address)
    if isinstance(parsed, IPv6Address) or any(parsed in shut for shut in NEVER):
        return False
    return not any(parsed in shut for shut in PRIVATE) or any(parsed in part for part in opened)


def nameservers(resolv_conf: str) -> tuple[str, ...]:
    """The IPv4 name servers of a resolv.conf that can be reached from outside this host's loopback."""
    found = re.findall(r"^\s*nameserver\s+([0-9.]+)\s*$", resolv_conf, re.MULTILINE)
    usable = []
    for address in found:
        try:
            if not any(IPv4Address(address) in shut for shut in NEVER):
                usable.append(address)
        except ValueError:
            continue
    return tuple(dict.fromkeys(usable))


def networks(texts: Iterable[str]) -> tuple[IPv4Network, ...]:
    """Networks from settings; InvalidInput for what is none."""
    found = []
    for text in texts:
        try:
            network = ip_network(text)
        except ValueError as error:
            raise InvalidInput(f"egress: {text!r} is not a network", hint=str(error)) from None
        if not isinstance(network, IPv4Network):
            raise InvalidInput(f"egress: {text!r} is not an IPv4 network", hint="only IPv4 is offered")
        found.append(network)
    return tuple(found)


def key(instance: str) -> str:
    """A short name that nftables and the kernel take: ten hex digits of the id's digest."""
    return hashlib.sha256(instance.encode()).hexdigest()[:10]


def _elements(values: Iterable[object]) -> str:
    listed = ", ".join(str(value) for value in values)
    return f"elements = {{ {listed} }}" if listed else ""


def _common(opened: tuple[IPv4Network, ...], resolvers: tuple[str, ...]) -> str:
    return f"""
  set never {{ type ipv4_addr; flags interval; auto-merge; {_elements(NEVER)}; }}
  set private {{ type ipv4_addr; flags interval; auto-merge; {_elements(PRIVATE)}; }}
  set opened {{ type ipv4_addr; flags interval; auto-merge; {_elements(opened)} }}
  set resolvers {{ type ipv4_addr; {_elements(resolvers)} }}
  chain refuse {{
    meta l4proto tcp reject with tcp reset
    reject with icmpx type admin-prohibited
  }}"""


def host_table(
    table: str,
    prefix: str,
    pool: IPv4Network,
    opened: tuple[IPv4Network, ...],
    resolvers: tuple[str, ...],
    router: bool,
) -> str:
    """The table of a platform that runs as root; interfaces of instances are called `prefix` + key.

    Without `router` this host forwarded nothing before, so nothing but instances' packets may be forwarded now.
    """
    strict = "" if router else f'iifname != "{FAMILY}*" oifname != "{FAMILY}*" drop comment "{NO_ROUTER}"'
    return f"""
table inet {table} {{{_common(opened, resolvers)}
  set members {{ type ifname . ipv4_addr; }}
  set resolving {{ type ifname; }}
  map instances {{ type ifname : verdict; }}
  chain early {{
    type filter hook prerouting priority mangle; policy accept;
    iifname != "{prefix}*" accept
    meta nfproto ipv6 drop
    iifname . ip saddr != @members drop
    ip daddr @never jump refuse
    fib daddr type {{ local, broadcast, multicast }} jump refuse
  }}
  chain own {{ type filter hook input priority filter; policy accept; iifname "{prefix}*" drop; }}
  chain outgoing {{
    ct state established,related accept
    oifname "{prefix}*" jump refuse
    iifname @resolving ip daddr @resolvers meta l4proto {{ tcp, udp }} th dport 53 accept
    ip daddr @never jump refuse
    ip daddr @private ip daddr != @opened jump refuse
    iifname vmap @instances
    jump refuse
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname "{prefix}*" jump outgoing
    oifname "{prefix}*" ct state established,related accept
    oifname "{prefix}*" drop
    {strict}
  }}
  chain leave {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {pool} oifname != "{prefix}*" masquerade
  }}
}}
"""


def host_instance(table: str, interface: str, address: str, chain: str, resolving: bool) -> str:
    """What admits one instance to the host's table; its chain comes from `allow_chain`."""
    lines = [
        f'add element inet {table} members {{ "{interface}" . {address} }}',
        f'add element inet {table} instances {{ "{interface}" : jump {chain} }}',
    ]
    if resolving:
        lines.append(f'add element inet {table} resolving {{ "{interface}" }}')
    return "\n".join(lines) + "\n"


def host_forget(table: str, interface: str, address: str, chain: str, resolving: bool) -> str:
    """The reverse of `host_instance` and `allow_chain`."""
    lines = [
        f'delete element inet {table} instances {{ "{interface}" }}',
        f'delete element inet {table} members {{ "{interface}" . {address} }}',
        f"flush chain inet {table} {chain}",
        f"delete chain inet {table} {chain}",
        f"delete set inet {table} {chain}_any",
        f"delete set inet {table} {chain}_port",
    ]
    if resolving:
        lines.insert(0, f'delete element inet {table} resolving {{ "{interface}" }}')
    return "\n".join(lines) + "\n"


def allow_chain(table: str, chain: str, everything: bool) -> str:
    """A chain that lets the instance's destinations through, and the two sets that hold them."""
    last = "accept" if everything else "jump refuse"
    return f"""
add set inet {table} {chain}_any {{ type ipv4_addr; flags interval; auto-merge; }}
add set inet {table} {chain}_port {{ type ipv4_addr . inet_service; flags interval; }}
add chain inet {table} {chain}
flush chain inet {table} {chain}
add rule inet {table} {chain} ip daddr @{chain}_any accept
add rule inet {table} {chain} meta l4proto {{ tcp, udp }} ip daddr . th dport @{chain}_port accept
add rule inet {table} {chain} {last}
"""


def destinations(table: str, chain: str, pairs: Iterable[tuple[IPv4Network, int]]) -> str:
    """Replaces what an instance may reach, in one transaction; port 0 is every port."""
    wanted = sorted(set(pairs))
    anything = [str(network) for network, port in wanted if port == 0]
    single = [f"{network} . {port}" for network, port in _disjoint(wanted)]
    lines = [f"flush set inet {table} {chain}_any", f"flush set inet {table} {chain}_port"]
    if anything:
        lines.append(f"add element inet {table} {chain}_any {{ {', '.join(anything)} }}")
    if single:
        lines.append(f"add element inet {table} {chain}_port {{ {', '.join(single)} }}")
    return "\n".join(lines) + "\n"


def _disjoint(pairs: Iterable[tuple[IPv4Network, int]]) -> list[tuple[IPv4Network, int]]:
    """Without those that a wider network with the same port contains: an interval set refuses overlaps."""
    kept: list[tuple[IPv4Network, int]] = []
    for network, port in sorted(set(pairs), key=lambda pair: (pair[1], pair[0].prefixlen)):
        if port and not any(port == other and network.subnet_of(wider) for wider, other in kept):
            kept.append((network, port))
    return kept


def inner_table(
    table: str, opened: tuple[IPv4Network, ...], resolvers: tuple[str, ...], resolving: bool, chain: str
) -> str:
    """The table inside the instance's own network namespace, where no host table can be had."""
    names = "ip daddr @resolvers meta l4proto { tcp, udp } th dport 53 accept" if resolving else ""
    return f"""
table inet {table} {{{_common(opened, resolvers)}
  set host {{ type ipv4_addr; }}
  chain {chain} {{ }}
  chain output {{
    type filter hook output priority filter; policy accept;
    oifname "lo" accept
    ct state established,related accept
    meta nfproto ipv6 drop
    ip daddr @never jump refuse
    ip daddr @host jump refuse
    {names}
    ip daddr @private ip daddr != @opened jump refuse
    jump {chain}
  }}
}}
"""


def host_addresses(table: str, addresses: Iterable[str]) -> str:
    """Replaces the set of this host's own addresses in an `inner_table`."""
    lines = [f"flush set inet {table} host"]
    if listed := ", ".join(sorted(addresses)):
        lines.append(f"add element inet {table} host {{ {listed} }}")
    return "\n".join(lines) + "\n"
