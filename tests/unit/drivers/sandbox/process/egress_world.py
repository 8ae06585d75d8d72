"""A little internet in namespaces of its own, for test_egress.py, which starts this file under `unshare`.

    host (this process's network namespace): 203.0.113.1, servers on its loopback and on its address
    far (another namespace behind a veth): public, private, link-local and metadata addresses, a server on each

Prints one JSON object: what each scenario saw.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from septet.drivers.sandbox.process.egress import Egress, EgressSettings
from septet.drivers.sandbox.process.egress_tools import addresses, forward, forwarding, interfaces, need
from septet.drivers.sandbox.process.leash import Leash
from septet.model.errors import Conflict, InvalidInput

PUBLIC, OTHER, RESOLVER, PRIVATE = "198.51.100.7", "198.51.100.8", "10.1.2.3", "192.168.7.7"
METADATA, ALIBABA, HOST = "169.254.169.254", "100.100.100.200", "203.0.113.1"
FAR = [PUBLIC, OTHER, RESOLVER, PRIVATE, METADATA, ALIBABA]
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable

SERVE = """
import socket, sys, threading
def serve(family, address, port):
    s = socket.socket(family)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address, port)); s.listen(64)
    def loop():
        while True:
            c, peer = s.accept(); c.sendall(peer[0].encode()); c.close()
    threading.Thread(target=loop).start()
for port in (53, 80, 443):
    for address in sys.argv[1:]:
        serve(socket.AF_INET6 if ":" in address else socket.AF_INET, address, port)
def echo(address):
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind((address, 53))
    while True:
        data, peer = u.recvfrom(100); u.sendto(data, peer)
for address in ("10.1.2.3", "198.51.100.7"):
    try:
        threading.Thread(target=echo, args=(address,)).start()
    except OSError:
        pass
print("up", flush=True)
"""

ASK = """
import json, socket, sys, concurrent.futures
def ask(target):
    address, _, port = target.rpartition(":")
    udp = port == "u53"
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    s = socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
    s.settimeout(0.5)
    try:
        s.connect((address, int(port.removeprefix("u"))))
        if udp:
            s.send(b"x")
        return "open " + s.recv(50).decode()
    except OSError as error:
        return "shut %s" % error
with concurrent.futures.ThreadPoolExecutor(40) as pool:
    print(json.dumps(dict(zip(sys.argv[1:], pool.map(ask, sys.argv[1:])))))
"""

children: list[subprocess.Popen[bytes]] = []


def sh(*command: str) -> None:
    subprocess.run([need(command[0]) if command[0] in ("ip", "nsenter") else command[0], *command[1:]], check=True)


def background(*command: str, wait: bool = False) -> int:
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    children.append(process)
    if wait:
        assert process.stdout is not None
        process.stdout.readline()
    return process.pid


def namespace(*flags: str) -> int:
    """A process in a network namespace of its own."""
    return background(
        "unshare", *flags, "--net", "--", PYTHON, "-c", "import time; print(1, flush=True); time.sleep(300)", wait=True
    )


def serve_in(pid: int, *where: str, user: bool = False) -> None:
    joined = ["--user", "--preserve-credentials"] if user else []
    background(need("nsenter"), "-t", str(pid), *joined, "-n", PYTHON, "-c", SERVE, *where, wait=True)


def ask(pid: int, *targets: str, user: bool = False) -> dict[str, str]:
    joined = ["--user", "--preserve-credentials"] if user else []
    command = [need("nsenter"), "-t", str(pid), *joined, "-n", PYTHON, "-c", ASK, *targets]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=30).stdout)
    return {target: answer.split()[0] for target, answer in found.items()}


def build() -> None:
    forward(False)  # a new namespace starts as its host is
    far = namespace()
    sh("ip", "link", "set", "lo", "up")
    sh("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1", "netns", str(far))
    sh("ip", "address", "add", f"{HOST}/24", "dev", "up0")
    sh("ip", "link", "set", "up0", "up")
    sh("ip", "route", "add", "default", "via", "203.0.113.2")
    sh("ip", "address", "add", "2001:db8::1/64", "dev", "up0", "nodad")
    sh("ip", "route", "add", "fd00:ec2::/64", "via", "2001:db8::2")
    inside = [
        "address add 203.0.113.2/24 dev up1",
        "address add 2001:db8::2/64 dev up1 nodad",
        "link set lo up",
        "link set up1 up",
    ]
    inside += [f"address add {address}/32 dev lo" for address in FAR]
    inside += ["address add fd00:ec2::254/128 dev lo nodad", "route add 198.18.0.0/15 via 203.0.113.1"]
    subprocess.run(
        [need("nsenter"), "-t", str(far), "-n", need("ip"), "-batch", "-"], input="\n".join(inside).encode(), check=True
    )
    serve_in(far, "0.0.0.0", "fd00:ec2::254")
    serve_in(os.getpid(), "0.0.0.0")
    os.environ["FAR"] = str(far)
    for _ in range(20):  # IPv6 takes a moment until the link counts as up
        if ask(os.getpid(), "fd00:ec2::254:80") == {"fd00:ec2::254:80": "open"}:
            return


EVERYTHING = [f"{address}:80" for address in FAR]
EVERYTHING += [f"{HOST}:80", "203.0.113.2:80", f"{RESOLVER}:53", f"{RESOLVER}:u53", f"{PUBLIC}:443", f"{PUBLIC}:u53"]
EVERYTHING += ["fd00:ec2::254:80", "127.0.0.1:80"]
SETTINGS = EgressSettings(tag="abc", resolvers=(RESOLVER,), refresh=0.3, keep=0.4)


CASES: dict[str, tuple[str, ...]] = {
    "everything": (),
    "network": (f"{PUBLIC}/32",),
    "port": ("198.51.100.0/24:443",),
    "name": ("allowed.test:80",),
    "rebound": ("rebound.test",),
    "overlap": ("198.51.100.0/24:443", f"{PUBLIC}:443", "198.51.100.0/25", OTHER),
}


async def allow_lists(egress: Egress, rootless: bool, hosts: Path) -> dict[str, object]:
    flags = ["--user", "--map-root-user"] if rootless else []
    pids = {name: namespace(*flags) for name in ("unattached", *CASES)}
    await asyncio.gather(*(egress.attach(name, pids[name], allow, rootless) for name, allow in CASES.items()))

    async def asked(name: str, *targets: str) -> dict[str, str]:
        return await asyncio.to_thread(ask, pids[name], *targets, user=rootless)

    seen: dict[str, object] = dict(
        zip(pids, await asyncio.gather(*(asked(name, *EVERYTHING) for name in pids)), strict=True)
    )
    if not rootless:
        seen["host"] = ask(os.getpid(), *EVERYTHING)
    hosts.write_text(f"{OTHER} allowed.test\n")
    for _ in range(30):
        # A refresh comes when it comes on a busy machine; that it comes is what counts.
        await asyncio.sleep(0.5)
        moved = await asked("name", f"{PUBLIC}:80", f"{OTHER}:80")
        seen["moved"] = moved
        if moved[f"{PUBLIC}:80"] != "open":
            break
    seen["twice"] = await refused(egress.attach("name", pids["name"], (), rootless), Conflict)
    await asyncio.gather(*(egress.detach(name) for name in CASES))
    if not rootless:
        for name in CASES:
            seen[f"{name} detached"] = await asked(name, f"{PUBLIC}:80")
    seen["own namespace"] = await refused(egress.attach("x", os.getpid(), (), rootless), InvalidInput)
    await egress.detach("unknown")
    return seen


async def refused(attempt: object, kind: type[Exception]) -> bool:
    try:
        await attempt  # type: ignore[misc]
    except kind:
        return True
    return False


async def as_root(hosts: Path) -> dict[str, object]:
    egress = Egress(SETTINGS)
    seen: dict[str, object] = {"forwarding before": forwarding()}
    seen["checks"] = {check.name: check.state for check in await egress.probe()}
    seen["untouched by the probe"] = await state()
    seen.update(await allow_lists(egress, False, hosts))
    one, two = namespace(), namespace()
    await egress.attach("one", one, (), False)
    await egress.attach("two", two, (), False)
    serve_in(two, "0.0.0.0")
    theirs = "198.18.0.6"
    seen["neighbour"] = ask(one, f"{theirs}:80", f"{PUBLIC}:80")
    seen["inbound"] = ask(int(os.environ["FAR"]), f"{theirs}:80")
    seen["neighbour listens"] = ask(two, f"{theirs}:80")
    seen["running"] = await state()
    later = Egress(SETTINGS)  # as after a kill
    await later.cleanup()
    seen["cleaned"] = await state()
    opened = Egress(EgressSettings(tag="abd", opened=("192.168.7.0/24",), resolvers=(RESOLVER,)))
    three = namespace()
    await opened.attach("three", three, (), False)
    seen["opened"] = ask(three, *EVERYTHING)
    await opened.close()
    seen["closed"] = await state()
    broken = Egress(EgressSettings(tag="abe"))
    seen["dead process"] = await refused(broken.attach("dead", 2**22 - 1, (), False), OSError)
    seen["crowded"] = await crowded()
    return seen


async def crowded() -> dict[str, object]:
    """Two platforms on one host, of which the first leaves first."""
    first, second = Egress(EgressSettings(tag="001")), Egress(EgressSettings(tag="002"))
    one, two = namespace(), namespace()
    await first.attach("a", one, (), False)
    await second.attach("a", two, (), False)
    seen: dict[str, object] = {"both have addresses": {"198.18.0.1", "198.18.0.5"} <= await addresses()}
    seen["first"], seen["second"] = ask(one, f"{PUBLIC}:80"), ask(two, f"{PUBLIC}:80")
    await first.close()
    seen["second alone"], seen["forwarding"] = ask(two, f"{PUBLIC}:80"), forwarding()
    await second.close()
    seen["after"] = await state()
    return seen


async def state() -> dict[str, object]:
    tables = subprocess.run([need("nft"), "list", "tables"], capture_output=True, check=True).stdout.decode()
    return {"tables": tables.split("\n")[:-1], "interfaces": await interfaces("sv"), "forwarding": forwarding()}


async def as_user(hosts: Path) -> dict[str, object]:
    egress = Egress(SETTINGS)
    seen: dict[str, object] = {"uid": os.geteuid()}
    seen["checks"] = {check.name: check.state for check in await egress.probe()}
    seen.update(await allow_lists(egress, True, hosts))
    one = namespace("--user", "--map-root-user")
    await egress.attach("one", one, (), True)
    with_pasta = pastas()
    await egress.detach("one")
    seen["pasta ends on detach"] = (with_pasta, await gone())
    two = namespace("--user", "--map-root-user")
    await egress.attach("two", two, (), True)
    await Egress(EgressSettings(tag="def")).cleanup()
    seen["another's pasta stays"] = pastas()
    await Egress(SETTINGS).cleanup()  # as after a kill
    seen["pasta ends on cleanup"] = await gone()
    await egress.close()
    for untied in (False, True):
        holder = subprocess.Popen([sys.executable, __file__, "holder", str(untied)], stdout=subprocess.PIPE)
        assert holder.stdout is not None
        inside = int(holder.stdout.readline())
        running = pastas()
        holder.kill()
        holder.wait()
        seen[f"pasta after kill -9, {untied=}"] = (running, await gone())
        await Egress(SETTINGS).cleanup()
        os.kill(inside, 9)
    return seen


async def hold(untied: bool) -> None:
    """A platform to be killed, with one instance; `untied` is the control."""
    if untied:
        Leash.tie = lambda *_: None  # type: ignore[method-assign]
    egress = Egress(SETTINGS)
    one = namespace("--user", "--map-root-user")
    await egress.attach("held", one, (), True)
    print(one, flush=True)
    await asyncio.sleep(60)


def pastas() -> int:
    """Those that run: one that nobody has waited for keeps its name, but no command line."""
    return sum(
        (entry / "comm").read_text().startswith(("pasta", "passt")) and bool((entry / "cmdline").read_bytes())
        for entry in Path("/proc").glob("[0-9]*")
    )


async def gone() -> bool:
    """Within two seconds."""
    for _ in range(40):
        if pastas() == 0:
            return True
        await asyncio.sleep(0.05)
    return False


async def unflagged() -> dict[str, str]:
    """The control: pasta without its flags reaches a server on the parent's loopback by the gateway's address."""
    pid = namespace("--user", "--map-root-user")
    subprocess.run([need("pasta"), "--config-net", "--ipv4-only", "--quiet", str(pid)], check=True)
    return ask(pid, "203.0.113.2:80", f"{METADATA}:80", user=True)


def main(part: str) -> None:
    hosts = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(tempfile.mkdtemp()) / "hosts"
    try:
        if part == "root" or part == "world":
            hosts.write_text(f"{PUBLIC} allowed.test\n{METADATA} rebound.test\n{PRIVATE} rebound.test\n")
            hosts.chmod(0o666)
            sh("mount", "--bind", str(hosts), "/etc/hosts")
            build()
        if part == "root":
            print(json.dumps(asyncio.run(as_root(hosts))))
        elif part == "world":
            user = ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--", sys.executable, __file__]
            sh(*user, "user", str(hosts))
        elif part == "holder":
            asyncio.run(hold(sys.argv[2] == "True"))
        elif part == "user":
            found = asyncio.run(as_user(hosts))
            found["control"] = asyncio.run(unflagged())
            print(json.dumps(found))
    finally:
        for child in children:
            child.kill()
        if part != "user":
            shutil.rmtree(hosts.parent)


if __name__ == "__main__":
    main(sys.argv[1])
