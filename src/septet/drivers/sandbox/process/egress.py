"""The way out of an instance's network namespace: veth and nftables as root, pasta with nftables inside as a user.

Only IPv4, only TCP, UDP and ICMP echo that the rules in `egress_rules` let through. Attach before the function
starts: the rules are in place before the first route is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

from septet.drivers.sandbox.process import egress_rules as rules
from septet.drivers.sandbox.process import egress_tools as tools
from septet.drivers.sandbox.process.leash import Leash
from septet.model.errors import Conflict, InvalidInput, NodeFull, SeptetError, Unavailable
from septet.ports.sandbox import Check

_TABLES = "septet_"
_TABLE_INSIDE, _CHAIN_INSIDE = "septet", "allow"


@dataclass(frozen=True, slots=True)
class EgressSettings:
    """`tag` (three hex digits) tells apart platforms on one host. `pool` gives instances their addresses, four each.
    `opened` are parts of the private ranges that instances may reach. `resolvers` empty means those of
    `resolv_conf`. Names are looked up again every `refresh` seconds; an address stays for `keep` seconds after it
    was last seen."""

    tag: str = "000"
    pool: str = "198.18.0.0/15"
    opened: tuple[str, ...] = ()
    resolvers: tuple[str, ...] = ()
    resolv_conf: tuple[str, ...] = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
    refresh: float = 60.0
    keep: float = 600.0


@dataclass(slots=True)
class _Attached:
    """One instance's way out. `seen` says when a name last had an address."""

    destinations: tuple[rules.Destination, ...]
    pid: int
    rootless: bool
    chain: str
    interface: str = ""
    index: int = -1
    pasta: asyncio.subprocess.Process | None = None
    seen: dict[tuple[IPv4Network, int], float] = field(default_factory=dict)

    @property
    def resolving(self) -> bool:
        """An allow-list of networks alone needs no name server, and gets none."""
        return not self.destinations or any(one.name for one in self.destinations)


class Egress:
    """Attaches instances to the outside, and detaches them. One object per platform process."""

    def __init__(self, settings: EgressSettings | None = None) -> None:
        self._settings = settings or EgressSettings()
        self._table = _TABLES + self._settings.tag
        self._prefix = rules.FAMILY + self._settings.tag
        (self._pool,) = rules.networks([self._settings.pool])
        self._opened = rules.networks(self._settings.opened)
        self._attached: dict[str, _Attached] = {}
        self._taken: set[int] = set()
        self._ready = False
        self._setup = asyncio.Lock()
        self._leash = Leash()
        self._refresher: asyncio.Task[None] | None = None

    def resolvers(self) -> tuple[str, ...]:
        """The name servers that an instance can reach: what its /etc/resolv.conf should name. May be empty."""
        if self._settings.resolvers:
            return self._settings.resolvers
        for path in self._settings.resolv_conf:
            with contextlib.suppress(OSError):
                if found := rules.nameservers(Path(path).read_text()):
                    return found
        return ()

    def check(self, allow: tuple[str, ...], rootless: bool) -> None:
        """InvalidInput for an allow-list or a host that `attach` would refuse; to be asked at deploy."""
        rules.parse_allow(allow, self._opened)
        for program in ("ip", "nft", "nsenter", *(["pasta"] if rootless else [])):
            tools.need(program)
        if rootless and not tools.tunnel():
            raise InvalidInput(
                f"network mode egress needs {tools.TUNNEL}, which this user cannot open",
                hint=f"chmod 0666 {tools.TUNNEL} (what udev gives it), or modprobe tun when it is missing",
                details={"field": "network.mode"},
            )

    async def attach(self, instance_id: str, pid: int, allow: tuple[str, ...], rootless: bool) -> None:
        """Gives the network namespace of `pid` a way out, only to `allow` when it is not empty.

        `pid` must live in its own network namespace, not yet run the function, and be accessible (dumpable).
        Raises InvalidInput (allow-list, missing program), Conflict (attached already), NodeFull (no address
        left) and Unavailable; then nothing remains.
        """
        self.check(allow, rootless)
        if instance_id in self._attached:
            raise Conflict(f"instance {instance_id} has its way out already")
        if os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net"):  # noqa: PTH115 - text, not a path
            raise InvalidInput(f"process {pid} shares this host's network", hint="start it in a namespace of its own")
        name = rules.key(instance_id)
        chain = _CHAIN_INSIDE if rootless else f"i{name}"
        one = _Attached(rules.parse_allow(allow, self._opened), pid, rootless, chain, f"{self._prefix}{name}")
        self._attached[instance_id] = one
        try:
            await self._look_up(one)
            await (self._attach_inside(one) if rootless else self._attach_veth(one))
        except BaseException:
            await self.detach(instance_id)
            raise
        if self._refresher is None:
            self._refresher = asyncio.create_task(self._refresh())

    async def detach(self, instance_id: str) -> None:
        """Takes the way out away; unknown and half-attached instances are fine."""
        one = self._attached.pop(instance_id, None)
        if one is None:
            return
        if one.pasta is not None:
            with contextlib.suppress(ProcessLookupError):
                one.pasta.terminate()
            await one.pasta.wait()
        if one.index >= 0:
            # Each may be gone already: the interface ends with the namespace.
            with contextlib.suppress(SeptetError):
                await tools.run("ip", "link", "delete", one.interface)
            with contextlib.suppress(SeptetError):
                address = str(self._pool[one.index * 4 + 2])
                await tools.nft(rules.host_forget(self._table, one.interface, address, one.chain, one.resolving))
            self._taken.discard(one.index)

    async def cleanup(self) -> None:
        """Removes what an earlier life with the same tag left: pasta, interfaces, the table, forwarding it put on."""
        tools.end_pasta(self._table)
        if os.geteuid() != 0 or tools.find("nft") is None or tools.find("ip") is None:
            return
        for interface in await tools.interfaces(self._prefix):
            with contextlib.suppress(Unavailable):
                await tools.run("ip", "link", "delete", interface)
        with contextlib.suppress(Unavailable):
            table = await tools.run("nft", "list", "table", "inet", self._table)
            await tools.nft(f"delete table inet {self._table}\n")
            if rules.NO_ROUTER in table and not await tools.tables(_TABLES):
                tools.forward(False)  # nobody of ours needs it any more, and nobody else had it on
        self._ready = False

    async def close(self) -> None:
        """Detaches everything and removes the table."""
        if self._refresher is not None:
            self._refresher.cancel()
            await asyncio.gather(self._refresher, return_exceptions=True)
            self._refresher = None
        for instance_id in list(self._attached):
            await self.detach(instance_id)
        await asyncio.to_thread(self._leash.close)
        if self._ready:
            await self.cleanup()

    # -- as root ------------------------------------------------------------------------------------------------

    async def _attach_veth(self, one: _Attached) -> None:
        await self._host_table()
        one.index = self._take()
        outer, inner = str(self._pool[one.index * 4 + 1]), str(self._pool[one.index * 4 + 2])
        await tools.nft(
            rules.allow_chain(self._table, one.chain, everything=not one.destinations)
            + rules.destinations(self._table, one.chain, one.seen)
            + rules.host_instance(self._table, one.interface, inner, one.chain, one.resolving)
        )
        pair = f"link add {one.interface} type veth peer name eth0 netns {one.pid}\n"
        pair += f"address add {outer}/30 dev {one.interface}\nlink set {one.interface} up\n"
        await tools.run("ip", "-batch", "-", text=pair)
        guest = f"address add {inner}/30 dev eth0\nlink set eth0 up\nlink set lo up\nroute add default via {outer}\n"
        await tools.inside(one.pid, False, "ip", "-batch", "-", text=guest)

    async def _host_table(self) -> None:
        async with self._setup:
            if self._ready:
                return
            await self.cleanup()
            # Another platform may have switched it on, for its instances only.
            router = tools.forwarding() and not any(rules.NO_ROUTER in text for text in await tools.tables(_TABLES))
            text = rules.host_table(self._table, self._prefix, self._pool, self._opened, self.resolvers(), router)
            await tools.nft(text)
            if not router:
                tools.forward(True)
            self._ready = True
            here = await tools.addresses()
            self._taken |= {i for i in self._places() if str(self._pool[i * 4 + 1]) in here}

    def _places(self) -> range:
        return range(self._pool.num_addresses // 4)

    def _take(self) -> int:
        """The lowest free place in the pool. Another platform's places show up as this host's addresses."""
        index = next((place for place in self._places() if place not in self._taken), -1)
        if index < 0:
            raise NodeFull(f"egress: all {len(self._places())} addresses are in use", limit=f"pool={self._pool}")
        self._taken.add(index)
        return index

    # -- as an ordinary user ------------------------------------------------------------------------------------

    async def _attach_inside(self, one: _Attached) -> None:
        text = rules.inner_table(_TABLE_INSIDE, self._opened, self.resolvers(), one.resolving, one.chain)
        text += rules.allow_chain(_TABLE_INSIDE, one.chain, everything=not one.destinations)
        text += rules.destinations(_TABLE_INSIDE, one.chain, one.seen)
        text += rules.host_addresses(_TABLE_INSIDE, await tools.addresses())
        await tools.inside(one.pid, True, "nft", "-f", "-", text=text)
        one.pasta = await tools.pasta(one.pid, self._table, self._leash)

    # -- names --------------------------------------------------------------------------------------------------

    async def _look_up(self, one: _Attached) -> bool:
        """Brings `seen` up to date; True when the set of destinations changed."""
        before, now = set(one.seen), time.monotonic()
        for destination in one.destinations:
            if destination.network is not None:
                one.seen[destination.network, destination.port] = now
                continue
            for address in await _addresses(destination.name):
                if rules.reachable(address, self._opened):
                    one.seen[IPv4Network(address), destination.port] = now
        one.seen = {pair: at for pair, at in one.seen.items() if now - at <= self._settings.keep}
        return set(one.seen) != before

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(self._settings.refresh)
            for one in list(self._attached.values()):
                # An instance that ends meanwhile, or a name server that fails, is for the next round.
                with contextlib.suppress(SeptetError, OSError):
                    await self._refresh_one(one)

    async def _refresh_one(self, one: _Attached) -> None:
        changed = await self._look_up(one)
        if not one.rootless:
            if changed:
                await tools.nft(rules.destinations(self._table, one.chain, one.seen))
            return
        text = rules.host_addresses(_TABLE_INSIDE, await tools.addresses())
        text += rules.destinations(_TABLE_INSIDE, one.chain, one.seen)
        await tools.inside(one.pid, True, "nft", "-f", "-", text=text)

    # -- what works here ----------------------------------------------------------------------------------------

    async def probe(self) -> list[Check]:
        """What this host can do, tried in throw-away namespaces: the host's own network is not touched."""
        rootless = os.geteuid() != 0
        found = [_tool(name) for name in ("ip", "nft", "nsenter", "unshare", *(["pasta"] if rootless else []))]
        if rootless and not tools.tunnel():
            lost, fix = "no network mode egress", f"chmod 0666 {tools.TUNNEL}"
            found.append(Check(name="egress: tun", state="missing", detail="not accessible", cost=lost, fix=fix))
        if all(check.state == "ok" for check in found):
            found.append(await self._try_rules(rootless))
        servers = self.resolvers()
        found.append(
            Check(name="egress: name servers", state="ok", detail=", ".join(servers))
            if servers
            else Check(
                name="egress: name servers",
                state="degraded",
                detail="resolv.conf names none that is reachable from outside the loopback",
                cost="functions with egress resolve no names",
                fix="set the platform's egress resolvers",
            )
        )
        return found

    async def _try_rules(self, rootless: bool) -> Check:
        if rootless:
            text = rules.inner_table(_TABLE_INSIDE, self._opened, (), True, _CHAIN_INSIDE)
            text += rules.allow_chain(_TABLE_INSIDE, _CHAIN_INSIDE, everything=False)
            entered = ["--user", "--map-root-user", "--net"]
        else:
            text = rules.host_table(self._table, self._prefix, self._pool, self._opened, (), True)
            text += rules.allow_chain(self._table, "i0", everything=False)
            entered = ["--net"]
        try:
            await tools.run("unshare", *entered, "--", tools.need("nft"), "-f", "-", text=text)
            add = ("link", "add", "sv0", "type", "veth", "peer", "name", "sv1")
            await tools.run("unshare", *entered, "--", tools.need("ip"), *add)
        except SeptetError as error:
            return Check(name="egress: rules", state="missing", detail=error.message, cost="no network mode egress")
        return Check(name="egress: rules", state="ok", detail="pasta" if rootless else "veth and nftables")


def _tool(name: str) -> Check:
    if found := tools.find(name):
        return Check(name=f"egress: {name}", state="ok", detail=found)
    return Check(
        name=f"egress: {name}",
        state="missing",
        detail="not installed",
        cost="no network mode egress",
        fix=f"apt install {tools.PACKAGES[name]}",
    )


async def _addresses(name: str) -> set[str]:
    """The name's IPv4 addresses now, none when it cannot be resolved."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, None, family=socket.AF_INET)
    except OSError:
        return set()
    return {str(sockaddr[0]) for *_, sockaddr in found}


def refuse(missing: Sequence[Check]) -> None:
    """Raises InvalidInput when something is missing, with what to do about it."""
    if missing:
        why = "; ".join(f"{check.name}: {check.detail}" for check in missing)
        fixes = "; ".join(check.fix for check in missing if check.fix)
        raise InvalidInput(
            f"network mode egress does not work on this host: {why}",
            hint=fixes or "run `septet doctor`, or use network mode none",
            details={"field": "network"},
        )
